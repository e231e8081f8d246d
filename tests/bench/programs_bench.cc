// What a program costs each packet: real datagrams over the loopback interface
// with and without it, and the program alone on made-up ones.

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpf-programs/flow_filter/flow_filter.h"
#include "bpf-programs/tun_steering/tun_steering.h"
#include "client/bpfgrant/user_ring_buffer.h"
#include "tests/bench/tracing_bench.h"
#include "tests/privileged/loaded_program.h"
#include "tests/privileged/loopback.h"

namespace bpfgrant::bench {
namespace {

using test::LoadedProgram;
using test::UdpSocket;
using Clock = std::chrono::steady_clock;

constexpr int kPackets = 20'000;
constexpr int kRounds = 9;
constexpr int kRuns = 200'000;

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

void Print(const std::string& what, double nanoseconds, double baseline) {
  std::printf("  %-52s %9.1f ns  %5.2fx\n", what.c_str(), nanoseconds,
              nanoseconds / baseline);
}

// Sends a datagram and takes it, again and again. `each` before each.
class Datagrams {
 public:
  void Attach(int program) { receiver_.Attach(SO_ATTACH_BPF, program); }
  double Measure(const std::function<void()>& each = [] {}) {
    const std::string bytes(64, 'x');
    const auto began = Clock::now();
    for (int i = 0; i < kPackets; ++i) {
      each();
      sender_.SendTo(receiver_.port(), bytes);
      char taken[64];
      if (recv(receiver_.fd(), taken, sizeof(taken), MSG_DONTWAIT) < 0) {
        std::perror("recv");
      }
    }
    const std::chrono::duration<double, std::nano> spent = Clock::now() - began;
    return spent.count() / kPackets;
  }

 private:
  UdpSocket receiver_, sender_{"127.0.0.2"};
};

// Nanoseconds of one run, as the kernel measures them.
double RunAlone(int program, const std::vector<char>& frame) {
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame.data(),
              .data_size_in = static_cast<uint32_t>(frame.size()),
              .repeat = kRuns);
  std::vector<double> rounds;
  for (int i = 0; i < kRounds; ++i) {
    if (bpf_prog_test_run_opts(program, &options) < 0) std::perror("test run");
    rounds.push_back(options.duration);
  }
  return Median(rounds);
}

std::vector<char> Frame(int family, uint8_t protocol) {
  std::vector<char> frame(128);
  ethhdr link{};
  link.h_proto = htons(family == AF_INET ? ETH_P_IP : ETH_P_IPV6);
  std::memcpy(frame.data(), &link, sizeof(link));
  iphdr ipv4{};
  ipv4.version = 4;
  ipv4.ihl = 5;
  ipv4.protocol = protocol;
  ipv4.saddr = inet_addr("127.0.0.2");
  ipv6hdr ipv6{};
  ipv6.version = 6;
  ipv6.nexthdr = protocol;
  family == AF_INET
      ? std::memcpy(frame.data() + sizeof(link), &ipv4, sizeof(ipv4))
      : std::memcpy(frame.data() + sizeof(link), &ipv6, sizeof(ipv6));
  return frame;
}

class Filter {
 public:
  Filter() : program_(LoadedProgram::Load("flow_filter")) {
    auto commands = UserRingBuffer::Map(program_->map("commands"), 256 * 1024);
    commands_ = std::make_unique<UserRingBuffer>(*std::move(commands));
  }
  int program() const { return program_->program(); }

  void Submit(int rule) {
    auto sample = commands_->Reserve(sizeof(flow_filter_command));
    if (!sample.ok()) return;
    flow_filter_command command{};
    command.verb = FLOW_FILTER_ADD;
    command.list = FLOW_FILTER_ALLOW;
    command.family = 4;
    command.prefix_length = 32;
    command.address[0] = 10;
    command.address[1] = static_cast<uint8_t>(rule >> 16);
    command.address[2] = static_cast<uint8_t>(rule >> 8);
    command.address[3] = static_cast<uint8_t>(rule);
    std::memcpy(sample->data(), &command, sizeof(command));
    commands_->Submit(*sample);
  }
  void Fill(int rules) {
    const std::vector<char> frame = Frame(AF_INET, IPPROTO_UDP);
    for (int rule = 0; rule < rules; ++rule) {
      Submit(rule);
      program_->Run(frame);
    }
  }

 private:
  std::unique_ptr<LoadedProgram> program_;
  std::unique_ptr<UserRingBuffer> commands_;
};

void RealPackets() {
  Datagrams plain, sampled, empty, full, fed;
  const auto sampler = LoadedProgram::Load("packet_sampler");
  sampled.Attach(sampler->program());
  Filter no_rules, many_rules, changing;
  empty.Attach(no_rules.program());
  many_rules.Fill(FLOW_FILTER_RULES);
  full.Attach(many_rules.program());
  fed.Attach(changing.program());
  int rule = 0;
  struct Way {
    std::string name;
    std::function<double()> measure;
    std::vector<double> rounds;
  };
  std::vector<Way> ways = {
      {"no program", [&] { return plain.Measure(); }, {}},
      {"packet_sampler", [&] { return sampled.Measure(); }, {}},
      {"flow_filter, no rule", [&] { return empty.Measure(); }, {}},
      {absl::StrCat("flow_filter, ", FLOW_FILTER_RULES, " rules"),
       [&] { return full.Measure(); },
       {}},
      {"flow_filter, a rule replaced before each packet",
       [&] { return fed.Measure([&] { changing.Submit(rule++ % 1000); }); },
       {}},
  };
  for (int round = 0; round < kRounds; ++round) {
    for (Way& way : ways) way.rounds.push_back(way.measure());
  }
  std::printf("a datagram of 64 bytes, sent and received\n");
  for (const Way& way : ways) {
    Print(way.name, Median(way.rounds), Median(ways.front().rounds));
  }
}

void Alone() {
  const auto udp4 = Frame(AF_INET, IPPROTO_UDP);
  const auto udp6 = Frame(AF_INET6, IPPROTO_UDP);
  const auto sampler = LoadedProgram::Load("packet_sampler");
  const double baseline = RunAlone(sampler->program(), udp4);
  Filter no_rules, many_rules;
  many_rules.Fill(FLOW_FILTER_RULES);
  const auto steering = LoadedProgram::Load("tun_steering");
  steering->Write("config", 0,
                  tun_steering_config{.redirect = 1,
                                      .hash_types = 0x3f,
                                      .table_length = TUN_STEERING_TABLE});
  std::printf("the program alone, a run\n");
  Print("packet_sampler, its ring buffer full", baseline, baseline);
  Print("flow_filter, no rule, IPv4", RunAlone(no_rules.program(), udp4),
        baseline);
  Print(absl::StrCat("flow_filter, ", FLOW_FILTER_RULES, " rules, IPv4"),
        RunAlone(many_rules.program(), udp4), baseline);
  Print(absl::StrCat("flow_filter, ", FLOW_FILTER_RULES, " rules, IPv6"),
        RunAlone(many_rules.program(), udp6), baseline);
  Print("tun_steering, UDP over IPv4", RunAlone(steering->program(), udp4),
        baseline);
  Print("tun_steering, UDP over IPv6", RunAlone(steering->program(), udp6),
        baseline);
}

}  // namespace
}  // namespace bpfgrant::bench

int main() {
  bpfgrant::bench::RealPackets();
  bpfgrant::bench::Alone();
  bpfgrant::bench::MeasureRequests();
}

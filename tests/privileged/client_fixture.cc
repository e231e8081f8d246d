#include "tests/privileged/client_fixture.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "bpfgrant/programs/packet_sampler.h"
#include "gtest/gtest.h"
#include "tests/harness/open_fds.h"
#include "tests/harness/process_tree.h"

namespace bpfgrant::test {
namespace {

namespace fs = std::filesystem;

long Bpf(bpf_cmd command, bpf_attr& attributes) {
  return syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

UniqueFd FdById(bpf_cmd command, uint32_t id) {
  bpf_attr attributes{};
  attributes.map_id = id;
  UniqueFd fd(static_cast<int>(Bpf(command, attributes)));
  EXPECT_TRUE(fd.valid()) << "id " << id;
  return fd;
}

}  // namespace

void ClientTest::TearDown() {
  administrator_.reset();
  DaemonTest::TearDown();
}

void ClientTest::Start(DaemonOptions options) {
  if (options.policy.empty()) options.policy = kAllowAll;
  if (options.programs.empty()) options.programs = kTwoPrograms;
  ASSERT_TRUE(StartDaemon(options));
  auto connection = Connection::Connect(
      {.path = daemon().broker_socket(), .timeout = kPatience});
  ASSERT_TRUE(connection.ok()) << connection.status();
  administrator_.emplace(*std::move(connection));
}

void ClientTest::StartWithout(const std::vector<std::string>& mitigations) {
  DaemonOptions options;
  options.without = mitigations;
  Start(options);
}

void ClientTest::Connect(Nobody& client) {
  EXPECT_EQ(client.Word("connect " + daemon().broker_socket(), 1), "65534");
}

v1::StatusReply ClientTest::Status() {
  auto status = administrator().Status();
  EXPECT_TRUE(status.ok()) << status.status();
  return status.ok() ? *std::move(status) : v1::StatusReply();
}

uint32_t ClientTest::Revoke(const v1::RevokeRequest& request) {
  const auto reply = administrator().Revoke(request);
  EXPECT_TRUE(reply.ok()) << reply.status();
  if (!reply.ok()) return 0;
  EXPECT_FALSE(reply->running());
  return reply->revoked();
}

uint32_t ClientTest::RevokeGrant(uint64_t grant) {
  v1::RevokeRequest request;
  request.set_grant(grant);
  return Revoke(request);
}

void ClientTest::WaitUntilIdle() {
  v1::ListReply list;
  const bool idle = WaitUntil(
      [&] {
        auto reply = administrator().List();
        if (!reply.ok()) return false;
        list = *std::move(reply);
        for (const v1::ProgramSummary& program : list.program()) {
          if (program.available() &&
              (program.pool_ready() != program.pool_target() ||
               program.grants() != 0)) {
            return false;
          }
        }
        return true;
      },
      kPatience);
  EXPECT_TRUE(idle) << list.ShortDebugString();
}

Resting ClientTest::Rest() {
  Resting last;
  // The loader closes its copies of what it sent a moment after the broker has
  // them: at rest is what stays as it is for a while.
  WaitUntil(
      [&] {
        WaitUntilIdle();
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        const v1::StatusReply status = Status();
        const Resting before = std::exchange(
            last, {CountOpenFds(daemon().PidOf(Daemon::Process::kBroker)),
                   CountOpenFds(daemon().PidOf(Daemon::Process::kLoader)),
                   status.gate_slots_used(), status.sessions()});
        return last == before;
      },
      kPatience);
  return last;
}

void ClientTest::ExpectRestsAs(const Resting& before) {
  // Sessions end when the kernel says so; fds go a moment later.
  Resting now;
  const bool same = WaitUntil(
      [&] {
        now = Rest();
        return now == before;
      },
      kPatience);
  EXPECT_TRUE(same) << "broker's fds " << now.broker_fds << ", were "
                    << before.broker_fds << "; loader's " << now.loader_fds
                    << ", were " << before.loader_fds << "; gate slots "
                    << now.gate_slots_used << ", were "
                    << before.gate_slots_used << "; sessions " << now.sessions
                    << ", were " << before.sessions;
}

void ClientTest::ExpectGone(const KernelObjects& objects) {
  const auto left = WaitUntilGone(objects, kPatience);
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_TRUE(left->empty()) << left->Describe();
}

void ClientTest::AddSampler(const std::string& name, const std::string& from,
                            const std::string& to) {
  const fs::path catalog = daemon().catalog_directory();
  std::ifstream file(catalog / "packet_sampler.manifest");
  std::ostringstream manifest;
  manifest << file.rdbuf();
  daemon().AddCatalogEntry(
      name,
      absl::StrReplaceAll(
          manifest.str(),
          {{"name: \"packet_sampler\"", absl::StrCat("name: \"", name, "\"")},
           {"\"packet_sampler/1\"", absl::StrCat("\"", name, "/1\"")},
           {"\"packet_sampler.bpf.o\"", absl::StrCat("\"", name, ".bpf.o\"")},
           {from, to}}),
      catalog / "packet_sampler.bpf.o");
  const auto reply = administrator().Reload();
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->unavailable_size(), 0) << reply->unavailable(0);
  const auto described = administrator().Describe(name);
  ASSERT_TRUE(described.ok()) << described.status();
}

void BeginLongRun(Nobody& client, std::chrono::milliseconds time) {
  constexpr uint64_t kProbe = 2'000'000;
  // The first one fills ring buffers and caches, and takes longer.
  client.Number(absl::StrCat("run 0 ", kProbe));
  const uint64_t probe_ms =
      std::max<uint64_t>(client.Number(absl::StrCat("run 0 ", kProbe)), 1);
  const uint64_t times =
      kProbe * static_cast<uint64_t>(time.count()) / probe_ms;
  client.Tell(absl::StrCat("run 0 ", std::min<uint64_t>(times, INT32_MAX)));
  // Long enough for it to have begun.
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
}

KernelObjects HeldBy(pid_t process) {
  KernelObjects held;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(
           absl::StrCat("/proc/", process, "/fdinfo"), ignored)) {
    std::ifstream file(entry.path());
    std::string word;
    uint32_t id = 0;
    while (file >> word) {
      if (word == "prog_id:" && file >> id) held.programs.insert(id);
      if (word == "map_id:" && file >> id) held.maps.insert(id);
    }
  }
  return held;
}

SamplerProbe::SamplerProbe(const Acquired& acquired)
    : program_(FdById(BPF_PROG_GET_FD_BY_ID, acquired.program())),
      counters_(FdById(BPF_MAP_GET_FD_BY_ID, acquired.ids.at("counters"))) {}

uint64_t SamplerProbe::Seen() const {
  const uint32_t key = 0;
  packet_sampler_counters counters{};
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(counters_.get());
  attributes.key = reinterpret_cast<uintptr_t>(&key);
  attributes.value = reinterpret_cast<uintptr_t>(&counters);
  EXPECT_EQ(Bpf(BPF_MAP_LOOKUP_ELEM, attributes), 0);
  return counters.seen;
}

bool SamplerProbe::Runs() const {
  const uint64_t before = Seen();
  const char data[64] = {};
  bpf_attr attributes{};
  attributes.test.prog_fd = static_cast<uint32_t>(program_.get());
  attributes.test.data_in = reinterpret_cast<uintptr_t>(data);
  attributes.test.data_size_in = sizeof(data);
  EXPECT_EQ(Bpf(BPF_PROG_TEST_RUN, attributes), 0);
  return Seen() != before;
}

}  // namespace bpfgrant::test

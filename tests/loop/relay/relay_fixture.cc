#include "tests/loop/relay/relay_fixture.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>
#include <utility>

#include "bpfgrant/programs/relay.h"

BPFGRANT_NATIVE_LOOP(relay);

namespace bpfgrant::test {

Ends MakeUnix() {
  int pair[2] = {-1, -1};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
  return {UniqueFd(pair[0]), UniqueFd(pair[1])};
}

Ends MakeTcp() {
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  auto* const name = reinterpret_cast<sockaddr*>(&address);
  socklen_t length = sizeof(address);
  EXPECT_EQ(bind(listener.get(), name, length), 0);
  EXPECT_EQ(listen(listener.get(), 1), 0);
  EXPECT_EQ(getsockname(listener.get(), name, &length), 0);
  Ends ends;
  ends.one.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(ends.one.get(), name, length), 0);
  ends.other.reset(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(ends.other.valid());
  return ends;
}

std::string Bytes(size_t length, uint32_t seed) {
  std::string bytes(length, '\0');
  uint32_t value = seed * 2654435761u + 1;
  for (char& byte : bytes) {
    value = value * 1664525 + 1013904223;
    byte = static_cast<char>(value >> 24);
  }
  return bytes;
}

void RelayTest::Open(Loop::Options options, uint32_t flags) {
  loop_.reset();
  options.program = "relay";
  options.interface = RELAY_INTERFACE;
  options.interface_hash = RELAY_INTERFACE_HASH;
  options.native = &bpfgrant_native_relay;
  options.sq_entries = 256;
  options.cq_entries = 512;
  options.memory_bytes = sizeof(relay_memory);
  auto loop = Create(std::move(options));
  ASSERT_TRUE(loop.ok()) << loop.status();
  loop_.emplace(*std::move(loop));
  memory_ = loop_->memory_as<relay_memory>();
  ASSERT_NE(memory_, nullptr);
  memory_->config.memory = reinterpret_cast<uintptr_t>(memory_);
  memory_->config.flags = flags;
}

void RelayTest::Connect(uint32_t number, Ends (*make)()) {
  Ends near = make();
  Ends far = make();
  ASSERT_TRUE(relay_open(memory_, number, near.other.get(), far.other.get()));
  near_[number] = std::move(near.one);
  far_[number] = std::move(far.one);
  relayed_[number] = {std::move(near.other), std::move(far.other)};
}

Loop::Stop RelayTest::Pump() {
  for (;;) {
    auto stop = loop_->Run({.deadline = std::chrono::steady_clock::now() +
                                        std::chrono::seconds(60),
                            .wait = false});
    EXPECT_TRUE(stop.ok()) << stop.status();
    if (!stop.ok()) return {};
    EXPECT_EQ(stop->cause, Loop::Stop::Cause::kLoop) << Loop::Describe(*stop);
    if (stop->why != BPFGRANT_STOP_PASSED) return *stop;
  }
}

bool RelayTest::PumpUntil(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  for (;;) {
    Pump();
    if (condition()) return true;
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

bool RelayTest::PumpUntilDone() {
  return PumpUntil([this] { return Pump().why == BPFGRANT_STOP_DONE; });
}

size_t RelayTest::Send(int fd, const std::string& bytes, size_t from) {
  const ssize_t sent = send(fd, bytes.data() + from, bytes.size() - from,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent < 0 ? 0 : static_cast<size_t>(sent);
}

std::string RelayTest::Receive(int fd) {
  std::string all;
  char buffer[65536];
  for (;;) {
    const ssize_t came = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (came <= 0) return all;
    all.append(buffer, static_cast<size_t>(came));
  }
}

bool RelayTest::AtEnd(int fd) {
  char byte;
  return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

void RelayTest::Exchange(int one, int other, const std::string& there,
                         const std::string& back) {
  std::string came_there, came_back;
  size_t sent_there = 0, sent_back = 0;
  for (int idle = 0; idle < 1000 && !HasFailure(); ++idle) {
    if (came_there.size() == there.size() && came_back.size() == back.size())
      break;
    if (sent_there < there.size()) sent_there += Send(one, there, sent_there);
    if (sent_back < back.size()) sent_back += Send(other, back, sent_back);
    Pump();
    const std::string to_other = Receive(other);
    const std::string to_one = Receive(one);
    if (!to_other.empty() || !to_one.empty()) idle = 0;
    came_there += to_other;
    came_back += to_one;
  }
  EXPECT_TRUE(came_there == there);
  EXPECT_TRUE(came_back == back);
}

}  // namespace bpfgrant::test

#include "tests/bench/loops/relay_bench.h"

#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/programs/relay.h"
#include "client/bpfgrant/loop.h"
#include "relay.h"
#include "tests/bench/loops/measure.h"
#include "tests/bench/loops/settle.h"

BPFGRANT_NATIVE_LOOP(relay);

namespace bpfgrant::bench {
namespace {

constexpr int kRounds = 5;
constexpr uint64_t kMessages = 2'000;
constexpr uint64_t kBytes = 4 << 20;

void Check(int result, const char* what) {
  if (result >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(-result));
  std::abort();
}

// By hand: receives and sends are one ring's, a direction has one buffer.
class HandRelay {
 public:
  HandRelay(Connection*, const std::vector<int>& sockets)
      : directions_(sockets.size()) {
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                       IORING_SETUP_CQSIZE;
    parameters.cq_entries = 512;
    Check(io_uring_queue_init_params(256, &ring_, &parameters), "io_uring");
    Check(io_uring_register_ring_fd(&ring_), "io_uring_register_ring_fd");
    Check(io_uring_register_files(&ring_, sockets.data(), sockets.size()),
          "io_uring_register_files");
    for (uint32_t i = 0; i < directions_.size(); ++i) {
      directions_[i].buffer = std::make_unique<std::byte[]>(RELAY_BUFFER);
      Receive(i);
    }
    io_uring_submit(&ring_);
  }
  ~HandRelay() { io_uring_queue_exit(&ring_); }
  HandRelay(const HandRelay&) = delete;
  HandRelay& operator=(const HandRelay&) = delete;

  // Until a socket comes to its end.
  void Serve() {
    while (!ended_) {
      ++enters_;
      Check(io_uring_submit_and_wait(&ring_, 1), "io_uring_submit_and_wait");
      unsigned head = 0;
      unsigned seen = 0;
      io_uring_cqe* cqe = nullptr;
      io_uring_for_each_cqe(&ring_, head, cqe) {
        ++seen;
        Check(cqe->res, "recv or send");
        Came(static_cast<uint32_t>(cqe->user_data >> 1), cqe->user_data & 1,
             static_cast<uint32_t>(cqe->res));
      }
      io_uring_cq_advance(&ring_, seen);
    }
  }
  uint64_t enters() const { return enters_; }

 private:
  struct Direction {
    std::unique_ptr<std::byte[]> buffer;
    uint32_t length = 0;
    uint32_t sent = 0;
    bool drained = false;
  };

  void Came(uint32_t index, bool was_send, uint32_t bytes) {
    Direction& direction = directions_[index];
    if (bytes == 0) {
      ended_ = true;
      return;
    }
    if (!was_send) {
      direction.length = bytes;
      direction.sent = 0;
      direction.drained = bytes < RELAY_BUFFER;
    } else {
      direction.sent += bytes;
    }
    if (direction.sent < direction.length) {
      Send(index);
    } else {
      Receive(index);
    }
  }
  void Receive(uint32_t index) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_recv(sqe, static_cast<int>(index),
                       directions_[index].buffer.get(), RELAY_BUFFER, 0);
    if (directions_[index].drained) sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, index << 1);
  }
  void Send(uint32_t index) {
    Direction& direction = directions_[index];
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_send(sqe, static_cast<int>(index ^ 1),
                       direction.buffer.get() + direction.sent,
                       direction.length - direction.sent, MSG_NOSIGNAL);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, index << 1 | 1);
  }

  io_uring ring_{};
  std::vector<Direction> directions_;
  bool ended_ = false;
  uint64_t enters_ = 0;
};

class LoopRelay {
 public:
  LoopRelay(Connection* connection, const std::vector<int>& sockets) {
    auto loop = Loop::Create(
        connection, {.program = "relay",
                     .interface = RELAY_INTERFACE,
                     .interface_hash = RELAY_INTERFACE_HASH,
                     .where = connection != nullptr ? Loop::Where::kKernelOnly
                                                    : Loop::Where::kProcessOnly,
                     .native = &bpfgrant_native_relay,
                     .sq_entries = 256,
                     .cq_entries = 512,
                     .memory_bytes = sizeof(relay_memory),
                     .files = sockets});
    if (!loop.ok()) {
      std::fprintf(stderr, "relay: %s\n", loop.status().ToString().c_str());
      std::abort();
    }
    loop_.emplace(*std::move(loop));
    memory_ = loop_->memory_as<relay_memory>();
    memory_->config.memory = reinterpret_cast<uintptr_t>(memory_);
    memory_->config.flags = RELAY_FIXED_FILES;
    for (uint32_t i = 0; i < sockets.size() / 2; ++i)
      relay_open(memory_, i, 2 * i, 2 * i + 1);
  }

  // Until all pairs have ended.
  void Serve() {
    for (;;) {
      const auto stop = loop_->Run({});
      if (!stop.ok()) std::abort();
      if (stop->why == BPFGRANT_STOP_DONE) return;
    }
  }
  uint64_t enters() const { return loop_->enters(); }

 private:
  std::optional<Loop> loop_;
  relay_memory* memory_ = nullptr;
};

// A thread that relays, and messages at one end of each pair that are read at
// the other. All of it is on the clock.
template <typename Relay>
class Entry {
 public:
  Entry(uint32_t pairs, uint32_t length, Connection* connection)
      : message_(length), buffer_(1 << 20) {
    for (uint32_t i = 0; i < 2 * pairs; ++i) {
      int pair[2];
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
      const int bytes = 1 << 20;
      for (const int fd : pair)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
      ends_.push_back(pair[0]);
      relayed_.push_back(pair[1]);
    }
    const OneProcessor one;
    thread_ = std::thread([this, connection] {
      Relay relay(connection, relayed_);
      relay_.store(&relay);
      relay.Serve();
    });
    while (relay_.load() == nullptr) std::this_thread::yield();
  }
  ~Entry() {
    for (const int fd : ends_) close(fd);
    thread_.join();
    for (const int fd : relayed_) close(fd);
  }

  Spent Turn() {
    const OneProcessor one;
    Spent spent;
    const uint64_t enters = relay_.load()->enters();
    const uint64_t messages =
        std::clamp<uint64_t>(kBytes / message_.size(), 16, kMessages);
    const Stopwatch stopwatch;
    while (spent.jobs < messages) {
      for (size_t i = 0; i < ends_.size(); i += 2) Write(ends_[i]);
      for (size_t i = 1; i < ends_.size(); i += 2) Read(ends_[i]);
      spent.jobs += ends_.size() / 2;
    }
    spent.seconds = stopwatch.seconds();
    spent.switches = stopwatch.switches();
    spent.enters = relay_.load()->enters() - enters;
    return spent;
  }

 private:
  void Write(int fd) {
    const auto length = static_cast<ssize_t>(message_.size());
    if (write(fd, message_.data(), message_.size()) != length) abort();
  }
  void Read(int fd) {
    for (size_t left = message_.size(); left > 0;) {
      const ssize_t came = read(fd, buffer_.data(), buffer_.size());
      if (came <= 0) abort();
      left -= static_cast<size_t>(came);
    }
  }

  std::vector<int> ends_, relayed_;
  std::vector<std::byte> message_, buffer_;
  std::atomic<Relay*> relay_{nullptr};
  std::thread thread_;
};

void BenchOne(Connection* connection, uint32_t pairs, uint32_t length) {
  Contest contest(absl::StrCat("relayed messages of ", length, " bytes, ",
                               pairs, pairs == 1 ? " pair" : " pairs"),
                  "by hand");
  const auto hand = std::make_shared<Entry<HandRelay>>(pairs, length, nullptr);
  contest.Add("by hand", [hand] { return hand->Turn(); });
  const auto loop = [&](const char* name, Connection* where) {
    auto entry = std::make_shared<Entry<LoopRelay>>(pairs, length, where);
    contest.Add(name, [entry] { return entry->Turn(); });
  };
  if (connection != nullptr) loop("loop, kernel", connection);
  loop("loop, process", nullptr);
  Settle(connection);
  contest.Run(kRounds);
}

}  // namespace

void BenchRelay(Connection* connection) {
  for (const uint32_t pairs : {1u, 16u}) {
    for (const uint32_t length :
         {16u, 64u, 256u, 1024u, 4096u, 16384u, 65536u, 196608u}) {
      BenchOne(connection, pairs, length);
    }
  }
}

}  // namespace bpfgrant::bench

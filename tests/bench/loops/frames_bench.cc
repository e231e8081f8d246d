#include "tests/bench/loops/frames_bench.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/loops/frames_loop.h"
#include "tests/bench/loops/measure.h"
#include "tests/bench/loops/settle.h"

namespace bpfgrant::bench {
namespace {

constexpr int kRounds = 5;
// What a turn reads, about.
constexpr uint64_t kBytes = 2 << 20;
constexpr uint64_t kMostFrames = 20'000;

// The sending sides: frames of one length, written while nobody looks at the
// clock.
class Senders {
 public:
  Senders(uint32_t connections, uint32_t length) : frame_(8 + length) {
    for (uint32_t i = 0; i < connections; ++i) {
      int pair[2];
      if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        abort();
      const int bytes = 1 << 20;
      setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
      ours_.push_back(pair[0]);
      theirs_.push_back(pair[1]);
    }
    for (uint32_t worker = 0; worker < HandReader::kWorkers; ++worker) {
      const frame_header header = {length, worker};
      const auto* bytes = reinterpret_cast<const std::byte*>(&header);
      four_.insert(four_.end(), bytes, bytes + sizeof(header));
      four_.insert(four_.end(), length, std::byte(worker + 1));
    }
    // One write of about 32 KiB, as a sender that has much to send makes it.
    const size_t times = std::max<size_t>(1, (32 << 10) / four_.size());
    for (size_t i = 0; i < times; ++i)
      block_.insert(block_.end(), four_.begin(), four_.end());
  }
  ~Senders() {
    for (const int fd : ours_) close(fd);
    for (const int fd : theirs_) close(fd);
  }
  Senders(const Senders&) = delete;
  Senders& operator=(const Senders&) = delete;

  const std::vector<int>& sockets() const { return ours_; }

  // A backlog of at most `frames` in all; how many.
  uint64_t Fill(uint64_t frames) {
    uint64_t filled = 0;
    for (const int fd : theirs_) {
      // What a Unix socket surely takes.
      size_t room = 192 << 10;
      const uint64_t share = std::max<uint64_t>(frames / theirs_.size(), 1);
      for (uint64_t sent = 0; sent < share;) {
        const size_t left = (share - sent) * frame_;
        const size_t bytes = std::min(block_.size(), left / frame_ * frame_);
        if (bytes > room && sent != 0) break;
        room -= std::min(room, bytes);
        if (write(fd, block_.data(), bytes) != static_cast<ssize_t>(bytes))
          abort();
        sent += bytes / frame_;
        filled += bytes / frame_;
      }
    }
    return filled;
  }

  // One frame to each connection.
  uint64_t FillOne() {
    for (const int fd : theirs_) {
      if (write(fd, four_.data(), frame_) != static_cast<ssize_t>(frame_))
        abort();
    }
    return theirs_.size();
  }

 private:
  const size_t frame_;
  std::vector<int> ours_, theirs_;
  std::vector<std::byte> four_, block_;
};

// One way of reading, with sockets of its own.
template <typename Reader>
class Entry {
 public:
  template <typename... Arguments>
  Entry(bool backlog, uint32_t connections, uint32_t length, uint64_t frames,
        Arguments... arguments)
      : backlog_(backlog),
        frames_(frames),
        senders_(connections, length),
        reader_(arguments..., senders_.sockets()) {}

  Spent Turn() {
    Spent spent;
    spent.enters -= reader_.enters();
    spent.copied -= reader_.copied();
    if (backlog_) {
      Backlog(spent);
    } else {
      InTurns(spent);
    }
    spent.enters += reader_.enters();
    spent.copied += reader_.copied();
    return spent;
  }

 private:
  // What is there is read on the clock.
  void Backlog(Spent& spent) {
    while (spent.jobs < frames_) {
      const uint64_t filled = senders_.Fill(frames_ - spent.jobs);
      const Stopwatch stopwatch;
      reader_.Run(reader_.sink().frames + filled);
      spent.seconds += stopwatch.seconds();
      spent.switches += stopwatch.switches();
      spent.jobs += filled;
    }
  }

  // A thread sends a frame to each connection when the last ones were read: the
  // reader sleeps in between. The sender is on the clock, too.
  void InTurns(Spent& spent) {
    const OneProcessor one;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) abort();
    const uint64_t turns = frames_ / senders_.sockets().size();
    std::thread sender([&] {
      char byte;
      for (uint64_t i = 0; i < turns; ++i) {
        senders_.FillOne();
        if (read(pair[1], &byte, 1) != 1) abort();
      }
    });
    const Stopwatch stopwatch;
    for (uint64_t i = 0; i < turns; ++i) {
      reader_.Run(reader_.sink().frames + senders_.sockets().size());
      spent.jobs += senders_.sockets().size();
      if (write(pair[0], "", 1) != 1) abort();
    }
    spent.seconds = stopwatch.seconds();
    spent.switches = stopwatch.switches();
    sender.join();
    close(pair[0]);
    close(pair[1]);
  }

  const bool backlog_;
  const uint64_t frames_;
  Senders senders_;
  Reader reader_;
};

void BenchOne(Connection* connection, bool backlog, uint32_t connections,
              uint32_t length) {
  const uint64_t frames = std::clamp<uint64_t>(
      kBytes / (length + 8), 200, backlog ? kMostFrames : kMostFrames / 10);
  Contest contest(
      absl::StrCat("frames of ", length, " bytes, ", connections,
                   connections == 1 ? " connection, " : " connections, ",
                   backlog ? "a backlog" : "one at a time"),
      "by hand: header, then body");
  const auto by_hand = [&](const char* name, HandReader::Way way) {
    auto entry = std::make_shared<Entry<HandReader>>(
        backlog, connections, length, frames, way, length);
    contest.Add(absl::StrCat("by hand: ", name),
                [entry] { return entry->Turn(); });
  };
  const auto loop = [&](const char* name, Connection* where,
                        frame_reader_mode mode) {
    auto entry = std::make_shared<Entry<LoopReader>>(
        backlog, connections, length, frames, where, mode, length);
    contest.Add(absl::StrCat("loop, ", name),
                [entry] { return entry->Turn(); });
  };
  by_hand("header, then body", HandReader::Way::kHeaderThenBody);
  by_hand("body with next header", HandReader::Way::kBodyAndHeader);
  by_hand("bulk, copied out", HandReader::Way::kBulkCopyOut);
  by_hand("bulk, multishot, copied out", HandReader::Way::kBulkMultishot);
  by_hand("bulk, left in place", HandReader::Way::kBulkInPlace);
  if (connection != nullptr) {
    loop("kernel, direct", connection, FRAME_READER_DIRECT);
    loop("kernel, bulk", connection, FRAME_READER_BULK);
  }
  loop("process, direct", nullptr, FRAME_READER_DIRECT);
  loop("process, bulk", nullptr, FRAME_READER_BULK);
  Settle(connection);
  contest.Run(kRounds);
}

}  // namespace

void BenchFrames(Connection* connection) {
  for (const uint32_t connections : {1u, 16u}) {
    for (const bool backlog : {true, false}) {
      for (const uint32_t length :
           {16u, 64u, 256u, 1024u, 4096u, 16384u, 65536u}) {
        BenchOne(connection, backlog, connections, length);
      }
    }
  }
}

}  // namespace bpfgrant::bench

// frames: a process without any privilege that reads a stream of frames through
// an approved io_uring loop, frame_reader, and then through a loop of its own
// with plain liburing. It checks each frame both times, and prints how long it
// took.

#include <liburing.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "bpfgrant/programs/frame_reader.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/loop.h"
#include "client/examples/frame_source.h"
// Behind the generated one.
#include "frame_reader.h"

BPFGRANT_NATIVE_LOOP(frame_reader);

namespace bpfgrant::example {
namespace {

// Bodies up to one length, in two classes: short ones, of which many are under
// way, and long ones.
constexpr uint32_t kShort = 4096;
constexpr uint32_t kLongest = 65536;
// A chunk of the memory in mode BULK.
constexpr uint32_t kChunk = 256 << 10;

absl::Status Wrong(uint64_t frame) {
  return absl::DataLossError(absl::StrCat("frame ", frame, " is not as sent"));
}

// Reads through the loop.
class Approved {
 public:
  static absl::StatusOr<Approved> Open(Connection* connection,
                                       frame_reader_mode mode,
                                       FrameSource& source) {
    auto loop = Loop::Create(
        connection,
        {.program = "frame_reader",
         .interface = FRAME_READER_INTERFACE,
         .interface_hash = FRAME_READER_INTERFACE_HASH,
         .where = connection == nullptr ? Loop::Where::kProcessOnly
                                        : Loop::Where::kKernelElseProcess,
         .native = &bpfgrant_native_frame_reader,
         .sq_entries = FRAME_READER_SQ_ENTRIES,
         .cq_entries = FRAME_READER_CQ_ENTRIES,
         .memory_bytes = FRAME_READER_MEMORY_BYTES});
    if (!loop.ok()) return loop.status();
    auto events = loop->Events();
    if (!events.ok()) return events.status();
    return Approved(*std::move(loop), *std::move(events), mode, source);
  }

  absl::Status Read() {
    for (;;) {
      const auto stop = loop_.Run({});
      if (!stop.ok()) return stop.status();
      if (const auto taken = events_.Consume(
              [this](absl::Span<const std::byte> record) { Take(record); });
          !taken.ok()) {
        return taken.status();
      }
      GiveBack();
      if (!wrong_.ok()) return wrong_;
      if (stop->why == BPFGRANT_STOP_DONE) return absl::OkStatus();
      if (stop->why != BPFGRANT_STOP_PASSED)
        return absl::InternalError(Loop::Describe(*stop));
    }
  }
  Loop& loop() { return loop_; }

 private:
  Approved(Loop loop, RingBuffer events, frame_reader_mode mode,
           FrameSource& source)
      : loop_(std::move(loop)),
        events_(std::move(events)),
        memory_(loop_.memory_as<frame_reader_memory>()),
        source_(source) {
    frame_reader_config& config = memory_->config;
    config.mode = mode;
    config.workers = FrameSource::kWorkers;
    config.stop_after = 256;
    config.chunk_bytes = kChunk;
    config.classes = 2;
    config.class_bytes[0] = kShort + sizeof(frame_header);
    config.class_slabs[0] = 128;
    config.class_bytes[1] = kLongest + sizeof(frame_header);
    config.class_slabs[1] = 4;
    slabs_.resize(config.workers * frame_reader_worker_bytes(&config));
    config.slabs = reinterpret_cast<uintptr_t>(slabs_.data());
    config.memory = reinterpret_cast<uintptr_t>(memory_);
    for (uint32_t slab = 0; slab < FRAME_READER_SLABS; ++slab)
      offsets_.push_back(frame_reader_body_offset(&config, slab));
    frame_reader_tell(memory_, FRAME_READER_OPEN, 0,
                      static_cast<uint32_t>(source.fd()));
  }

  bool bulk() const { return memory_->config.mode == FRAME_READER_BULK; }

  // A record is one event or more.
  void Take(absl::Span<const std::byte> record) {
    const auto* event = reinterpret_cast<const frame_event*>(record.data());
    for (size_t n = record.size() / sizeof(*event); n > 0; --n, ++event) {
      if (event->kind == FRAME_END && event->length == 0) continue;
      const std::byte* const body =
          bulk() ? reinterpret_cast<std::byte*>(memory_->staging) + event->place
                 : slabs_.data() + offsets_[event->place % FRAME_READER_SLABS];
      if (event->kind != FRAME_ARRIVED ||
          !source_.Check(event->worker, body, event->length)) {
        wrong_ = Wrong(source_.checked());
        return;
      }
      if (event->length == 0) continue;
      // What is of the same chunk goes back at once.
      if (count_ != 0 && (!bulk() || place_ / kChunk != event->place / kChunk))
        GiveBack();
      place_ = event->place;
      ++count_;
    }
  }

  void GiveBack() {
    if (count_ == 0) return;
    frame_reader_tell(memory_, FRAME_READER_GIVE, count_, place_);
    count_ = 0;
  }

  Loop loop_;
  RingBuffer events_;
  frame_reader_memory* memory_;
  FrameSource& source_;
  std::vector<std::byte> slabs_;
  std::vector<uint64_t> offsets_;  // of bodies, by slab
  uint32_t place_ = 0;             // of what is to be given back
  uint32_t count_ = 0;
  absl::Status wrong_;
};

// Reads with liburing alone: as much as there is, or a header and then its
// body.
class Own {
 public:
  Own(FrameSource& source, bool bulk)
      : source_(source), bulk_(bulk), buffer_(kChunk) {}

  absl::Status Read() {
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
    int error = io_uring_queue_init_params(8, &ring_, &parameters);
    if (error == 0) {
      const absl::Status status = bulk_ ? ReadBulk() : ReadEach();
      io_uring_queue_exit(&ring_);
      return status;
    }
    return absl::InternalError(
        absl::StrCat("io_uring: ", std::strerror(-error)));
  }

 private:
  // Bytes that came; 0 at the end.
  int Receive(void* to, size_t most, int flags) {
    io_uring_prep_recv(io_uring_get_sqe(&ring_), source_.fd(), to, most, flags);
    io_uring_cqe* completion = nullptr;
    io_uring_submit_and_wait(&ring_, 1);
    if (const int error = io_uring_wait_cqe(&ring_, &completion); error < 0)
      return error;
    const int result = completion->res;
    io_uring_cqe_seen(&ring_, completion);
    return result;
  }

  absl::Status ReadEach() {
    frame_header header;
    while (Receive(&header, sizeof(header), MSG_WAITALL) == sizeof(header)) {
      const auto length = static_cast<int>(header.length);
      if (header.length > buffer_.size() ||
          Receive(buffer_.data(), header.length, MSG_WAITALL) != length ||
          !source_.Check(header.worker, buffer_.data(), header.length)) {
        return Wrong(source_.checked());
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadBulk() {
    size_t start = 0, end = 0;
    int came;
    while ((came = Receive(buffer_.data() + end, buffer_.size() - end, 0)) >
           0) {
      end += static_cast<size_t>(came);
      frame_header header;
      while (end - start >= sizeof(header)) {
        std::memcpy(&header, buffer_.data() + start, sizeof(header));
        if (end - start - sizeof(header) < header.length) break;
        if (!source_.Check(header.worker,
                           buffer_.data() + start + sizeof(header),
                           header.length)) {
          return Wrong(source_.checked());
        }
        start += sizeof(header) + header.length;
      }
      if (buffer_.size() - end < kLongest + sizeof(header)) {
        std::memmove(buffer_.data(), buffer_.data() + start, end - start);
        end -= start;
        start = 0;
      } else if (start == end) {
        start = end = 0;
      }
    }
    return absl::OkStatus();
  }

  FrameSource& source_;
  const bool bulk_;
  io_uring ring_{};
  std::vector<std::byte> buffer_;
};

// Seconds that it took to read all frames.
template <typename Reader>
absl::StatusOr<double> Time(FrameSource& source, Reader& reader) {
  const auto begun = std::chrono::steady_clock::now();
  source.Start();
  if (absl::Status status = reader.Read(); !status.ok()) return status;
  if (source.checked() != source.frames()) return Wrong(source.checked());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun)
      .count();
}

absl::Status Run(Connection* connection, uint64_t frames, uint32_t length,
                 frame_reader_mode mode) {
  std::printf("%llu frames of %u bytes, each checked\n",
              static_cast<unsigned long long>(frames), length);
  FrameSource source(frames, length);
  auto approved = Approved::Open(connection, mode, source);
  if (!approved.ok()) return approved.status();
  const auto loop_time = Time(source, *approved);
  if (!loop_time.ok()) return loop_time.status();
  const Loop& loop = approved->loop();
  std::printf(
      "  by the approved loop, %s: %.2f s, %llu system calls\n",
      loop.place() == Loop::Place::kKernel
          ? "in the kernel"
          : absl::StrCat("in the process (", loop.place_reason(), ")").c_str(),
      *loop_time, static_cast<unsigned long long>(loop.enters()));
  for (const bool bulk : {false, true}) {
    FrameSource again(frames, length);
    Own own(again, bulk);
    const auto own_time = Time(again, own);
    if (!own_time.ok()) return own_time.status();
    std::printf("  by liburing, %s: %.2f s; the loop is %.2f times as fast\n",
                bulk ? "in bulk" : "header, then body", *own_time,
                *own_time / *loop_time);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace bpfgrant::example

int main(int argc, char** argv) {
  CLI::App app("Reads frames through an approved io_uring loop.");
  std::string socket = bpfgrant::kDefaultBrokerSocket;
  std::string mode = "direct";
  uint64_t frames = 1'000'000;
  uint32_t length = 64;
  bool here = false;
  app.add_option("--socket", socket, "the daemon's");
  app.add_option("--frames", frames, "how many")->check(CLI::PositiveNumber);
  app.add_option("--length", length, "of a body, in bytes")
      ->check(CLI::Range(1, 65536));
  app.add_option("--mode", mode, "direct or bulk")
      ->check(CLI::IsMember({"direct", "bulk"}));
  app.add_flag("--here", here, "in this process; the daemon is not asked");
  CLI11_PARSE(app, argc, argv);

  std::optional<bpfgrant::Connection> connection;
  if (!here) {
    auto connected = bpfgrant::Connection::Connect({.path = socket});
    if (!connected.ok()) {
      std::fprintf(stderr, "%s\n", connected.status().ToString().c_str());
      return 1;
    }
    connection.emplace(*std::move(connected));
  }
  const absl::Status status = bpfgrant::example::Run(
      connection.has_value() ? &*connection : nullptr, frames, length,
      mode == "bulk" ? FRAME_READER_BULK : FRAME_READER_DIRECT);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}

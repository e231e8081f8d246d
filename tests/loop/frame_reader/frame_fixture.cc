#include "tests/loop/frame_reader/frame_fixture.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

BPFGRANT_NATIVE_LOOP(frame_reader);

namespace bpfgrant::test {
namespace {

constexpr size_t kGuard = 1 << 20;

}  // namespace

std::ostream& operator<<(std::ostream& out, const Received& received) {
  out << received.frames.size() << " frames";
  for (const Frame& frame : received.frames) {
    out << " " << frame.worker << ":" << frame.body.size();
    if (!frame.body.empty()) out << ":" << static_cast<int>(frame.body[0]);
  }
  if (received.ending.has_value()) {
    out << ", ending " << received.ending->kind << " worker "
        << received.ending->worker << " length " << received.ending->length;
  }
  return out;
}

std::string Encode(uint32_t worker, const std::string& body,
                   std::optional<uint32_t> length) {
  const frame_header header = {
      length.value_or(static_cast<uint32_t>(body.size())), worker};
  std::string bytes(sizeof(header), '\0');
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes + body;
}

std::string Body(size_t length, uint32_t seed) {
  std::string body(length, '\0');
  uint32_t value = seed * 2654435761u + 1;
  for (char& byte : body) {
    value = value * 1664525 + 1013904223;
    byte = static_cast<char>(value >> 24);
  }
  return body;
}

Received Parse(const std::string& bytes, uint32_t workers, uint32_t longest) {
  Received parsed;
  size_t at = 0;
  frame_header header;
  while (bytes.size() - at >= sizeof(header)) {
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    if (header.worker >= workers || header.length > longest) {
      parsed.ending = {
          header.worker >= workers ? FRAME_BAD_WORKER : FRAME_TOO_LONG,
          header.worker, header.length};
      return parsed;
    }
    if (bytes.size() - at - sizeof(header) < header.length) break;
    parsed.frames.push_back(
        {header.worker, bytes.substr(at + sizeof(header), header.length)});
    at += sizeof(header) + header.length;
  }
  parsed.ending = {FRAME_END, 0, static_cast<uint32_t>(bytes.size() - at)};
  return parsed;
}

const std::vector<frame_reader_mode>& FrameReaderTest::Modes() {
  static const std::vector<frame_reader_mode> modes = {FRAME_READER_DIRECT,
                                                       FRAME_READER_BULK};
  return modes;
}

frame_reader_config FrameReaderTest::Config(frame_reader_mode mode) {
  frame_reader_config config{};
  config.mode = mode;
  config.workers = kWorkers;
  config.chunk_bytes = 256 << 10;
  config.stop_after = 1000;
  config.classes = 5;
  const uint32_t bytes[] = {32, 128, 1024, 8192, 65536};
  const uint32_t slabs[] = {64, 64, 32, 8, 4};
  for (int i = 0; i < 5; ++i) {
    config.class_bytes[i] = bytes[i] + sizeof(frame_header);
    config.class_slabs[i] = slabs[i];
  }
  return config;
}

void FrameReaderTest::Open(const frame_reader_config& config,
                           Loop::Options options) {
  events_.reset();
  loop_.reset();
  sockets_.clear();
  peers_.clear();
  received_.clear();
  places_.clear();
  held_.clear();
  // What is written behind a slab is written here, too.
  slabs_.assign(config.workers * frame_reader_worker_bytes(&config) + kGuard,
                std::byte{0xee});
  options.program = "frame_reader";
  options.interface = FRAME_READER_INTERFACE;
  options.interface_hash = FRAME_READER_INTERFACE_HASH;
  options.native = &bpfgrant_native_frame_reader;
  options.sq_entries = 256;
  options.cq_entries = 512;
  options.memory_bytes = sizeof(frame_reader_memory);
  if (config.flags & FRAME_READER_FIXED_SLABS) {
    options.buffers = {{slabs_.data(), slabs_.size() - kGuard}};
  }
  auto loop = Create(std::move(options));
  ASSERT_TRUE(loop.ok()) << loop.status();
  loop_.emplace(*std::move(loop));
  memory_ = loop_->memory_as<frame_reader_memory>();
  ASSERT_NE(memory_, nullptr);
  memory_->config = config;
  memory_->config.memory = reinterpret_cast<uintptr_t>(memory_);
  memory_->config.slabs = reinterpret_cast<uintptr_t>(slabs_.data());
  auto events = loop_->Events();
  ASSERT_TRUE(events.ok()) << events.status();
  events_.emplace(*std::move(events));
}

void FrameReaderTest::Connect(uint32_t number, std::optional<int> fd) {
  int pair[2] = {-1, -1};
  if (!fd.has_value()) {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    // Of both kinds: a loop waits in either case.
    if (number % 2 == 1) {
      ASSERT_EQ(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
    }
    sockets_[number] = UniqueFd(pair[0]);
    peers_[number] = UniqueFd(pair[1]);
    fd = pair[0];
  }
  ASSERT_TRUE(frame_reader_tell(memory_, FRAME_READER_OPEN, number,
                                static_cast<uint32_t>(*fd)));
}

size_t FrameReaderTest::Send(uint32_t number, const std::string& bytes,
                             size_t from) {
  const ssize_t sent = send(peers_.at(number).get(), bytes.data() + from,
                            bytes.size() - from, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) {
    EXPECT_EQ(errno, EAGAIN);
  }
  return sent < 0 ? 0 : static_cast<size_t>(sent);
}

Loop::Stop FrameReaderTest::RunOnce(bool wait) {
  auto stop = loop_->Run(
      {.deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60),
       .wait = wait});
  EXPECT_TRUE(stop.ok()) << stop.status();
  if (!stop.ok()) return {};
  EXPECT_EQ(stop->cause, Loop::Stop::Cause::kLoop) << Loop::Describe(*stop);
  return *stop;
}

Loop::Stop FrameReaderTest::Pump() {
  for (;;) {
    const Loop::Stop stop = RunOnce();
    const size_t taken = Take();
    if (!hold_) GiveBack();
    if (stop.why != BPFGRANT_STOP_PASSED || taken == 0) return stop;
  }
}

size_t FrameReaderTest::Take() {
  size_t taken = 0;
  const auto records =
      events_->Consume([&](absl::Span<const std::byte> record) {
        ASSERT_EQ(record.size() % sizeof(frame_event), 0u);
        for (size_t at = 0; at < record.size(); at += sizeof(frame_event)) {
          frame_event event;
          std::memcpy(&event, record.data() + at, sizeof(event));
          TakeOne(event);
          ++taken;
        }
      });
  EXPECT_TRUE(records.ok()) << records.status();
  return taken;
}

void FrameReaderTest::TakeOne(const frame_event& event) {
  Received& received = received_[event.connection];
  EXPECT_FALSE(received.ending.has_value());
  if (event.kind != FRAME_ARRIVED) {
    received.ending = {static_cast<frame_event_kind>(event.kind), event.worker,
                       event.length};
    return;
  }
  const bool direct = memory_->config.mode == FRAME_READER_DIRECT;
  std::string body(event.length, '\0');
  if (event.length != 0) {
    const void* from =
        direct ? static_cast<const void*>(
                     slabs_.data() +
                     frame_reader_body_offset(&memory_->config, event.place))
               : memory_->staging + event.place;
    std::memcpy(body.data(), from, body.size());
    held_.push_back(event.place);
  }
  places_.push_back(event.place);
  received.frames.push_back({event.worker, std::move(body)});
}

void FrameReaderTest::GiveBack() {
  for (const uint32_t place : held_) {
    EXPECT_TRUE(frame_reader_tell(memory_, FRAME_READER_GIVE, 1, place));
  }
  held_.clear();
}

void FrameReaderTest::SendAll(uint32_t number, const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size() && !HasFailure()) {
    sent += Send(number, bytes, sent);
    Pump();
  }
}

void FrameReaderTest::ExpectParsed(uint32_t number, const std::string& bytes) {
  const uint32_t longest = memory_->config.mode == FRAME_READER_DIRECT
                               ? 65536
                               : memory_->config.chunk_bytes - 8;
  EXPECT_EQ(Of(number), Parse(bytes, kWorkers, longest));
}

}  // namespace bpfgrant::test

#include "client/examples/frame_source.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "bpfgrant/programs/frame_reader.h"
// Behind the generated one.
#include "frame_reader.h"

namespace bpfgrant::example {
namespace {

// About, of frames that are made once; and the most that one write takes.
constexpr size_t kBlock = 256 << 10;
constexpr size_t kWrite = 32 << 10;

}  // namespace

FrameSource::FrameSource(uint64_t frames, uint32_t length)
    : frames_(frames), length_(length) {
  const size_t whole = sizeof(frame_header) + length;
  in_block_ = std::max<uint64_t>(kWorkers, kBlock / whole);
  block_.resize(in_block_ * whole);
  uint32_t noise = 1;
  for (uint64_t i = 0; i < in_block_; ++i) {
    std::byte* const frame = block_.data() + i * whole;
    const frame_header header = {length, static_cast<uint32_t>(i % kWorkers)};
    std::memcpy(frame, &header, sizeof(header));
    for (uint32_t at = 0; at < length; ++at) {
      noise = noise * 1664525 + 1013904223;
      frame[sizeof(header) + at] = static_cast<std::byte>(noise >> 24);
    }
  }
  int pair[2] = {-1, -1};
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return;
  reader_.reset(pair[0]);
  writer_.reset(pair[1]);
}

FrameSource::~FrameSource() {
  reader_.reset();  // a writer that waits for room ends
  if (thread_.joinable()) thread_.join();
}

void FrameSource::Start() {
  thread_ = std::thread([this] {
    const size_t whole = sizeof(frame_header) + length_;
    uint64_t left = frames_ * whole;
    for (size_t at = 0; left > 0;) {
      const size_t piece =
          std::min({kWrite, block_.size() - at, static_cast<size_t>(left)});
      const ssize_t sent =
          send(writer_.get(), block_.data() + at, piece, MSG_NOSIGNAL);
      if (sent < 0) break;
      left -= static_cast<uint64_t>(sent);
      at = (at + static_cast<size_t>(sent)) % block_.size();
    }
    writer_.reset();
  });
}

bool FrameSource::Check(uint32_t worker, const std::byte* body,
                        uint32_t length) {
  const uint64_t i = checked_ % in_block_;
  const std::byte* const expected = block_.data() +
                                    i * (sizeof(frame_header) + length_) +
                                    sizeof(frame_header);
  if (worker != i % kWorkers || length != length_ ||
      std::memcmp(body, expected, length) != 0) {
    return false;
  }
  ++checked_;
  return true;
}

}  // namespace bpfgrant::example

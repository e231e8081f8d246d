// Frames that a thread writes into a socket pair, the same few again and again,
// and what somebody who reads them compares them with.

#ifndef CLIENT_EXAMPLES_FRAME_SOURCE_H_
#define CLIENT_EXAMPLES_FRAME_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "proto/wire/unique_fd.h"

namespace bpfgrant::example {

class FrameSource {
 public:
  static constexpr uint32_t kWorkers = 4;

  FrameSource(uint64_t frames, uint32_t length);
  ~FrameSource();
  FrameSource(const FrameSource&) = delete;
  FrameSource& operator=(const FrameSource&) = delete;

  // Begins to write; closes its end when all frames are written.
  void Start();
  // The reader's end.
  int fd() const { return reader_.get(); }
  uint64_t frames() const { return frames_; }

  // Whether this is the next frame. Counts it.
  bool Check(uint32_t worker, const std::byte* body, uint32_t length);
  // How many were right so far.
  uint64_t checked() const { return checked_; }

 private:
  const uint64_t frames_;
  const uint32_t length_;
  uint64_t in_block_;             // frames
  std::vector<std::byte> block_;  // whole frames
  UniqueFd reader_, writer_;
  uint64_t checked_ = 0;
  std::thread thread_;
};

}  // namespace bpfgrant::example

#endif  // CLIENT_EXAMPLES_FRAME_SOURCE_H_

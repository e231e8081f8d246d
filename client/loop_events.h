// The events of a loop that runs in the process: the ring that bpfgrant_emit
// writes (bpfgrant/loop_events.h), laid out as the kernel lays out its own, and
// what RingBuffer reads it through.

#ifndef CLIENT_LOOP_EVENTS_H_
#define CLIENT_LOOP_EVENTS_H_

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "bpfgrant/loop_events.h"
#include "client/bpfgrant/ring_buffer.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

class LoopEvents {
 public:
  // `bytes`: a power of two, whole pages.
  static absl::StatusOr<std::unique_ptr<LoopEvents>> Make(size_t bytes);
  LoopEvents(const LoopEvents&) = delete;
  LoopEvents& operator=(const LoopEvents&) = delete;
  ~LoopEvents();

  // For struct bpfgrant_loop.
  bpfgrant_events* writer() { return &writer_; }
  // A mapping of its own; its fd is this object's.
  absl::StatusOr<RingBuffer> Reader() const;

 private:
  LoopEvents(UniqueFd memory, UniqueFd event, size_t bytes, void* consumer,
             void* producer);

  const UniqueFd memory_;
  const UniqueFd event_;
  bpfgrant_events writer_{};
};

}  // namespace bpfgrant

#endif  // CLIENT_LOOP_EVENTS_H_

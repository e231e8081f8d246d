// What traced loops do: reads the ring buffer that all of them write to, and
// gives each administrator who asked the records of one grant.
//
// A loop writes records while its gate says that it is traced; that bit is set
// here, for as long as somebody reads. Nobody waits for a reader: what it has
// no room for is dropped and counted.

#ifndef DAEMON_BROKER_TRACER_H_
#define DAEMON_BROKER_TRACER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/messages.pb.h"
#include "client/bpfgrant/ring_buffer.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/watchers.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class Tracer {
 public:
  // Takes an event, or answers that it has no room for it. It must not add or
  // remove tracers itself.
  using Sink = std::function<bool(const v1::TraceEvent&)>;

  // At once, on the whole machine: each record costs the loop time.
  static constexpr size_t kMaxReaders = 4;

  // Maps `ring_buffer`, the loader's. kInternal if that fails.
  static absl::StatusOr<std::unique_ptr<Tracer>> Map(UniqueFd ring_buffer,
                                                     EventLoop& loop,
                                                     Gates& gates,
                                                     Watchers& watchers);
  ~Tracer();

  // From now on `sink` gets what the instance behind `gate` does, and at last
  // that `grant` ended: it is no reader any more then. REASON_BUSY: enough
  // read.
  absl::StatusOr<uint64_t> Add(uint64_t grant, Gates::Gate gate, Sink sink);
  // Nothing happens if there is no such reader.
  void Remove(uint64_t reader);

  size_t size() const { return readers_.size(); }

 private:
  struct Reader {
    uint64_t grant;
    Gates::Gate gate;
    Sink sink;
    uint64_t dropped = 0;
  };

  Tracer(UniqueFd fd, RingBuffer ring_buffer, EventLoop& loop, Gates& gates,
         Watchers& watchers);
  // Takes records, some at most; how many.
  size_t Read();
  // All that are there.
  void ReadAll();
  void OnRecord(absl::Span<const std::byte> bytes);
  static void Give(Reader& reader, v1::TraceEvent event);
  void OnEvent(const v1::Event& event);
  bool IsRead(uint64_t nonce) const;

  UniqueFd fd_;
  RingBuffer ring_buffer_;
  EventLoop& loop_;
  Gates& gates_;
  Watchers& watchers_;
  absl::btree_map<uint64_t, Reader> readers_;
  uint64_t next_ = 1;
  uint64_t watch_;
  EventLoop::Source source_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_TRACER_H_

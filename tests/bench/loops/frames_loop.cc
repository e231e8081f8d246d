#include "tests/bench/loops/frames_loop.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/numeric/bits.h"

BPFGRANT_NATIVE_LOOP(frame_reader);

namespace bpfgrant::bench {
namespace {

constexpr uint32_t kHeader = sizeof(frame_header);

template <typename Result>
void Check(const Result& result, const char* what) {
  if (result.ok()) return;
  std::fprintf(stderr, "%s: %s\n", what, result.status().ToString().c_str());
  std::abort();
}

}  // namespace

LoopReader::LoopReader(Connection* connection, frame_reader_mode mode,
                       uint32_t length, const std::vector<int>& sockets) {
  auto loop = Loop::Create(
      connection, {.program = "frame_reader",
                   .interface = FRAME_READER_INTERFACE,
                   .interface_hash = FRAME_READER_INTERFACE_HASH,
                   .where = connection != nullptr ? Loop::Where::kKernelOnly
                                                  : Loop::Where::kProcessOnly,
                   .native = &bpfgrant_native_frame_reader,
                   .sq_entries = 256,
                   .cq_entries = 512,
                   .memory_bytes = sizeof(frame_reader_memory),
                   .files = sockets});
  Check(loop, "frame_reader");
  loop_.emplace(*std::move(loop));
  auto events = loop_->Events();
  Check(events, "events");
  events_.emplace(*std::move(events));
  memory_ = loop_->memory_as<frame_reader_memory>();
  Configure(mode, length);
  for (uint32_t i = 0; i < sockets.size(); ++i)
    frame_reader_tell(memory_, FRAME_READER_OPEN, i, i);
}

void LoopReader::Configure(frame_reader_mode mode, uint32_t length) {
  frame_reader_config& config = memory_->config;
  config.mode = mode;
  config.flags = FRAME_READER_FIXED_FILES;
  config.workers = HandReader::kWorkers;
  config.stop_after = 128;
  config.chunk_bytes = 256 << 10;
  config.memory = reinterpret_cast<uintptr_t>(memory_);
  static constexpr uint32_t kBytes[] = {64, 512, 4096, 16384, 65536};
  uint32_t least = 0;
  for (const uint32_t bytes : kBytes) {
    const uint32_t i = config.classes++;
    const bool used = length == 0 || (length > least && length <= bytes);
    config.class_bytes[i] = bytes + kHeader;
    config.class_slabs[i] = used ? SlabsFor(bytes) : 1;
    least = bytes;
  }
  slabs_.resize(config.workers * frame_reader_worker_bytes(&config));
  config.slabs = reinterpret_cast<uintptr_t>(slabs_.data());
  for (uint32_t slab = 0; slab < FRAME_READER_SLABS; ++slab)
    offsets_.push_back(frame_reader_body_offset(&config, slab));
}

void LoopReader::Give(uint32_t place, uint32_t count) {
  if (count == 0) return;
  if (!frame_reader_tell(memory_, FRAME_READER_GIVE, count, place)) abort();
}

// In mode BULK what goes to the same chunk is given back at once.
void LoopReader::Take() {
  const bool bulk = memory_->config.mode == FRAME_READER_BULK;
  const int shift = absl::countr_zero(memory_->config.chunk_bytes);
  uint32_t place = 0;
  uint32_t count = 0;
  const auto taken = events_->Consume([&](absl::Span<const std::byte> record) {
    const auto* event = reinterpret_cast<const frame_event*>(record.data());
    const auto* const end = event + record.size() / sizeof(*event);
    for (; event != end; ++event) {
      if (event->kind != FRAME_ARRIVED) abort();
      const auto* const body =
          bulk ? reinterpret_cast<const std::byte*>(memory_->staging) +
                     event->place
               : slabs_.data() + offsets_[event->place % FRAME_READER_SLABS];
      sink_.Take(event->worker, body, event->length);
      if (event->length == 0) continue;
      if (count != 0 && (!bulk || place >> shift != event->place >> shift)) {
        Give(place, count);
        count = 0;
      }
      place = event->place;
      ++count;
    }
  });
  Check(taken, "events");
  Give(place, count);
}

void LoopReader::Run(uint64_t frames) {
  while (sink_.frames < frames) {
    const auto stop = loop_->Run({});
    Check(stop, "run");
    if (stop->why != BPFGRANT_STOP_PASSED) {
      std::fprintf(stderr, "frame_reader: %s\n", Loop::Describe(*stop).c_str());
      std::abort();
    }
    Take();
  }
}

}  // namespace bpfgrant::bench

#include "daemon/broker/tracer.h"

#include <sys/epoll.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/loop_trace.h"
#include "proto/refusal/refusal.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {
namespace {

// Records taken before others get their turn: about a fifth of the buffer.
constexpr size_t kRecordsPerTurn = 512;

v1::TraceEvent ToEvent(const bpfgrant_trace_record& record) {
  v1::TraceEvent event;
  // The kinds have the same numbers.
  event.set_kind(v1::TraceEvent::Kind_IsValid(static_cast<int>(record.kind))
                     ? static_cast<v1::TraceEvent::Kind>(record.kind)
                     : v1::TraceEvent::KIND_UNSPECIFIED);
  event.set_step(record.step);
  event.set_at_ns(record.at_ns);
  event.set_result(record.result);
  event.set_user_data(record.user_data);
  event.set_flags(record.flags);
  event.set_opcode(record.opcode);
  event.set_fd(record.fd);
  event.set_length(record.length);
  event.set_offset(record.offset);
  event.set_stop(record.stop);
  event.set_wait_for(record.wait_for);
  return event;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tracer>> Tracer::Map(UniqueFd ring_buffer,
                                                    EventLoop& loop,
                                                    Gates& gates,
                                                    Watchers& watchers) {
  absl::StatusOr<RingBuffer> mapped =
      RingBuffer::Map(ring_buffer.get(), BPFGRANT_TRACE_BYTES);
  if (!mapped.ok()) return mapped.status();
  return std::unique_ptr<Tracer>(new Tracer(
      std::move(ring_buffer), *std::move(mapped), loop, gates, watchers));
}

Tracer::Tracer(UniqueFd fd, RingBuffer ring_buffer, EventLoop& loop,
               Gates& gates, Watchers& watchers)
    : fd_(std::move(fd)),
      ring_buffer_(std::move(ring_buffer)),
      loop_(loop),
      gates_(gates),
      watchers_(watchers),
      // Nobody's: it must not count among any user's.
      watch_(
          watchers_.Add(static_cast<uid_t>(-1), /*administrator=*/true,
                        [this](const v1::Event& event) { OnEvent(event); })) {}

Tracer::~Tracer() { watchers_.Remove(watch_); }

absl::StatusOr<uint64_t> Tracer::Add(uint64_t grant, Gates::Gate gate,
                                     Sink sink) {
  if (readers_.size() >= kMaxReaders) {
    return Refuse(v1::REASON_BUSY,
                  absl::StrCat(kMaxReaders, " traces are read already"));
  }
  if (!source_.active()) {
    // What an earlier reader left means nothing to this one.
    ReadAll();
    // What one turn leaves is readable still.
    source_ = loop_.Io(fd_.get(), EPOLLIN, [this](uint32_t) { Read(); });
  }
  const uint64_t reader = next_++;
  readers_.emplace(reader, Reader{grant, gate, std::move(sink)});
  gates_.SetTraced(gate, true);
  return reader;
}

void Tracer::Remove(uint64_t reader) {
  const auto found = readers_.find(reader);
  if (found == readers_.end()) return;
  const Gates::Gate gate = found->second.gate;
  readers_.erase(found);
  if (!IsRead(gate.nonce)) gates_.SetTraced(gate, false);
  if (readers_.empty()) source_ = EventLoop::Source();
}

bool Tracer::IsRead(uint64_t nonce) const {
  for (const auto& [id, reader] : readers_) {
    if (reader.gate.nonce == nonce) return true;
  }
  return false;
}

size_t Tracer::Read() {
  const absl::StatusOr<size_t> taken = ring_buffer_.Consume(
      [this](absl::Span<const std::byte> bytes) { OnRecord(bytes); },
      kRecordsPerTurn);
  if (taken.ok()) return *taken;
  spdlog::error("tracing is over: {}", std::string(taken.status().message()));
  source_ = EventLoop::Source();
  return 0;
}

void Tracer::ReadAll() {
  // Loops go on writing: no more than the buffer can hold.
  constexpr size_t kTurns =
      BPFGRANT_TRACE_BYTES / sizeof(bpfgrant_trace_record) / kRecordsPerTurn +
      1;
  for (size_t i = 0; i < kTurns && Read() == kRecordsPerTurn; ++i) {
  }
}

void Tracer::OnRecord(absl::Span<const std::byte> bytes) {
  bpfgrant_trace_record record;
  if (bytes.size() < sizeof(record)) return;
  std::memcpy(&record, bytes.data(), sizeof(record));
  for (auto& [id, reader] : readers_) {
    if (reader.gate.nonce != record.nonce) continue;
    Give(reader, ToEvent(record));
  }
}

void Tracer::Give(Reader& reader, v1::TraceEvent event) {
  event.set_grant(reader.grant);
  event.set_dropped(reader.dropped);
  reader.dropped = reader.sink(event) ? 0 : reader.dropped + 1;
}

void Tracer::OnEvent(const v1::Event& event) {
  if (event.type() != v1::Event::TYPE_GRANT_ENDED || readers_.empty()) return;
  std::vector<uint64_t> over;
  for (const auto& [id, reader] : readers_) {
    if (reader.grant == event.grant().grant()) over.push_back(id);
  }
  if (over.empty()) return;
  // What it did last is told before its end. Its sessions may be ending, too:
  // not from within the event.
  loop_.Post([this, over, reason = event.reason()] {
    ReadAll();
    for (const uint64_t id : over) {
      const auto found = readers_.find(id);
      if (found == readers_.end()) continue;
      Reader reader = std::move(found->second);
      Remove(id);
      v1::TraceEvent end;
      end.set_kind(v1::TraceEvent::KIND_ENDED);
      end.set_reason(reason);
      Give(reader, std::move(end));
    }
  });
}

}  // namespace bpfgrant::broker

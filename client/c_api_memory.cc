// What C maps of a grant: ring buffers of both kinds, arrays, swappable maps.

#include <chrono>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "client/c_api.h"

namespace bpfgrant {
namespace {

absl::Span<std::byte> SampleOf(void* sample, size_t bytes) {
  return {static_cast<std::byte*>(sample), bytes};
}

// Maps the handle `name` by `map`.
template <typename Mapped>
absl::StatusOr<Mapped> MapHandle(
    const bpfgrant_grant* grant, const char* name,
    absl::StatusOr<Mapped> (*map)(const Grant::Handle&)) {
  const auto handle = grant->grant->Find(TextOf(name));
  if (!handle.ok()) return handle.status();
  return map(**handle);
}

int GiveSample(absl::StatusOr<absl::Span<std::byte>> reserved, void** sample,
               bpfgrant_error* error) {
  *sample = nullptr;
  if (!reserved.ok()) return Fail(reserved.status(), error);
  *sample = reserved->data();
  return 0;
}

}  // namespace
}  // namespace bpfgrant

int bpfgrant_ring_buffer_open(const bpfgrant_grant* grant, const char* name,
                              bpfgrant_ring_buffer** ring_buffer,
                              bpfgrant_error* error) noexcept {
  return bpfgrant::Give(bpfgrant::MapHandle<bpfgrant::RingBuffer>(
                            grant, name, bpfgrant::RingBuffer::Map),
                        ring_buffer, error);
}

int bpfgrant_ring_buffer_map(int fd, size_t bytes,
                             bpfgrant_ring_buffer** ring_buffer,
                             bpfgrant_error* error) noexcept {
  return bpfgrant::Give(bpfgrant::RingBuffer::Map(fd, bytes), ring_buffer,
                        error);
}

void bpfgrant_ring_buffer_free(bpfgrant_ring_buffer* ring_buffer) noexcept {
  delete ring_buffer;
}

int bpfgrant_ring_buffer_fd(const bpfgrant_ring_buffer* ring_buffer) noexcept {
  return ring_buffer->ring_buffer.fd();
}

ssize_t bpfgrant_ring_buffer_consume(bpfgrant_ring_buffer* ring_buffer,
                                     bpfgrant_sample_callback callback,
                                     void* context, size_t most,
                                     bpfgrant_error* error) noexcept {
  const auto consumed = ring_buffer->ring_buffer.Consume(
      [&](absl::Span<const std::byte> sample) {
        callback(context, sample.data(), sample.size());
      },
      most == 0 ? std::numeric_limits<size_t>::max() : most);
  if (!consumed.ok()) return bpfgrant::Fail(consumed.status(), error);
  return static_cast<ssize_t>(*consumed);
}

int bpfgrant_array_map(const bpfgrant_grant* grant, const char* name,
                       bpfgrant_array** array, bpfgrant_error* error) noexcept {
  *array = nullptr;
  const auto handle = grant->grant->Find(bpfgrant::TextOf(name));
  if (!handle.ok()) return bpfgrant::Fail(handle.status(), error);
  auto mapped = bpfgrant::MappedArray::Map(**handle);
  if (!mapped.ok()) return bpfgrant::Fail(mapped.status(), error);
  *array = new bpfgrant_array{*std::move(mapped),
                              (*handle)->description.value_size()};
  return 0;
}

void bpfgrant_array_free(bpfgrant_array* array) noexcept { delete array; }

void* bpfgrant_array_at(const bpfgrant_array* array, uint32_t index) noexcept {
  return array->array.At(index);
}

uint32_t bpfgrant_array_entries(const bpfgrant_array* array) noexcept {
  return array->array.size();
}

uint32_t bpfgrant_array_value_size(const bpfgrant_array* array) noexcept {
  return array->value_size;
}

int bpfgrant_swappable_map_open(const bpfgrant_grant* grant, const char* name,
                                bpfgrant_swappable_map** map,
                                bpfgrant_error* error) noexcept {
  return bpfgrant::Give(
      bpfgrant::SwappableMap::Of(*grant->grant, bpfgrant::TextOf(name)), map,
      error);
}

void bpfgrant_swappable_map_free(bpfgrant_swappable_map* map) noexcept {
  delete map;
}

int bpfgrant_swappable_map_current(const bpfgrant_swappable_map* map) noexcept {
  return map->map.current();
}

int bpfgrant_swappable_map_spare(const bpfgrant_swappable_map* map) noexcept {
  return map->map.spare();
}

int bpfgrant_rotate(bpfgrant_grant* grant, bpfgrant_swappable_map* const* maps,
                    size_t count, uint32_t deadline_ms,
                    bpfgrant_error* error) noexcept {
  std::vector<bpfgrant::SwappableMap*> turned;
  for (size_t i = 0; i < count; ++i) turned.push_back(&maps[i]->map);
  return bpfgrant::ResultOf(
      bpfgrant::Rotate(*grant->grant, turned,
                       std::chrono::milliseconds(deadline_ms)),
      error);
}

int bpfgrant_user_ring_buffer_open(const bpfgrant_grant* grant,
                                   const char* name,
                                   bpfgrant_user_ring_buffer** ring_buffer,
                                   bpfgrant_error* error) noexcept {
  return bpfgrant::Give(bpfgrant::MapHandle<bpfgrant::UserRingBuffer>(
                            grant, name, bpfgrant::UserRingBuffer::Map),
                        ring_buffer, error);
}

int bpfgrant_user_ring_buffer_map(int fd, size_t bytes,
                                  bpfgrant_user_ring_buffer** ring_buffer,
                                  bpfgrant_error* error) noexcept {
  return bpfgrant::Give(bpfgrant::UserRingBuffer::Map(fd, bytes), ring_buffer,
                        error);
}

void bpfgrant_user_ring_buffer_free(
    bpfgrant_user_ring_buffer* ring_buffer) noexcept {
  delete ring_buffer;
}

int bpfgrant_user_ring_buffer_fd(
    const bpfgrant_user_ring_buffer* ring_buffer) noexcept {
  return ring_buffer->ring_buffer.fd();
}

size_t bpfgrant_user_ring_buffer_max_sample(
    const bpfgrant_user_ring_buffer* ring_buffer) noexcept {
  return ring_buffer->ring_buffer.max_sample_bytes();
}

size_t bpfgrant_user_ring_buffer_pending(
    const bpfgrant_user_ring_buffer* ring_buffer) noexcept {
  return ring_buffer->ring_buffer.pending();
}

int bpfgrant_user_ring_buffer_reserve(bpfgrant_user_ring_buffer* ring_buffer,
                                      size_t bytes, void** sample,
                                      bpfgrant_error* error) noexcept {
  return bpfgrant::GiveSample(ring_buffer->ring_buffer.Reserve(bytes), sample,
                              error);
}

int bpfgrant_user_ring_buffer_reserve_wait(
    bpfgrant_user_ring_buffer* ring_buffer, size_t bytes, int timeout_ms,
    void** sample, bpfgrant_error* error) noexcept {
  bpfgrant::UserRingBuffer::Deadline deadline;
  if (timeout_ms >= 0) {
    deadline = std::chrono::steady_clock::now() +
               std::chrono::milliseconds(timeout_ms);
  }
  return bpfgrant::GiveSample(
      ring_buffer->ring_buffer.ReserveBlocking(bytes, deadline), sample, error);
}

void bpfgrant_user_ring_buffer_submit(bpfgrant_user_ring_buffer* ring_buffer,
                                      void* sample, size_t bytes) noexcept {
  ring_buffer->ring_buffer.Submit(bpfgrant::SampleOf(sample, bytes));
}

void bpfgrant_user_ring_buffer_discard(bpfgrant_user_ring_buffer* ring_buffer,
                                       void* sample, size_t bytes) noexcept {
  ring_buffer->ring_buffer.Discard(bpfgrant::SampleOf(sample, bytes));
}

#include "client/loop_events.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"

namespace bpfgrant {
namespace {

size_t PageSize() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

absl::Status Failed(const char* what) {
  return absl::InternalError(
      absl::StrCat("a loop's events: ", what, ": ", std::strerror(errno)));
}

// The producer's page and the data, that twice in a row.
absl::StatusOr<void*> MapProducer(int memory, size_t bytes, int protection) {
  const size_t page = PageSize();
  void* const whole = mmap(nullptr, page + 2 * bytes, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (whole == MAP_FAILED) return Failed("mmap");
  const auto map = [&](size_t to, size_t length, size_t from) {
    return mmap(static_cast<std::byte*>(whole) + to, length, protection,
                MAP_SHARED | MAP_FIXED, memory,
                static_cast<off_t>(from)) != MAP_FAILED;
  };
  if (!map(0, page + bytes, page) || !map(page + bytes, bytes, 2 * page)) {
    const absl::Status failed = Failed("mmap");
    munmap(whole, page + 2 * bytes);
    return failed;
  }
  return whole;
}

absl::StatusOr<void*> MapConsumer(int memory) {
  void* const consumer =
      mmap(nullptr, PageSize(), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (consumer == MAP_FAILED) return Failed("mmap");
  return consumer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoopEvents>> LoopEvents::Make(size_t bytes) {
  if (!absl::has_single_bit(bytes) || bytes < PageSize()) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes, " is no size of a ring buffer"));
  }
  UniqueFd memory(memfd_create("bpfgrant-events", MFD_CLOEXEC));
  if (!memory.valid()) return Failed("memfd_create");
  if (ftruncate(memory.get(), static_cast<off_t>(2 * PageSize() + bytes)) != 0)
    return Failed("ftruncate");
  UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return Failed("eventfd");
  const absl::StatusOr<void*> consumer = MapConsumer(memory.get());
  if (!consumer.ok()) return consumer.status();
  const absl::StatusOr<void*> producer =
      MapProducer(memory.get(), bytes, PROT_READ | PROT_WRITE);
  if (!producer.ok()) {
    munmap(*consumer, PageSize());
    return producer.status();
  }
  return std::unique_ptr<LoopEvents>(new LoopEvents(
      std::move(memory), std::move(event), bytes, *consumer, *producer));
}

LoopEvents::LoopEvents(UniqueFd memory, UniqueFd event, size_t bytes,
                       void* consumer, void* producer)
    : memory_(std::move(memory)), event_(std::move(event)) {
  writer_.consumer = static_cast<bpfgrant_events_consumer*>(consumer);
  writer_.position = static_cast<unsigned long*>(producer);
  writer_.data = static_cast<unsigned char*>(producer) + PageSize();
  writer_.bytes = bytes;
  writer_.fd = event_.get();
}

LoopEvents::~LoopEvents() {
  munmap(writer_.consumer, PageSize());
  munmap(writer_.position, PageSize() + 2 * writer_.bytes);
}

absl::StatusOr<RingBuffer> LoopEvents::Reader() const {
  const absl::StatusOr<void*> consumer = MapConsumer(memory_.get());
  if (!consumer.ok()) return consumer.status();
  const absl::StatusOr<void*> producer =
      MapProducer(memory_.get(), writer_.bytes, PROT_READ);
  if (!producer.ok()) {
    munmap(*consumer, PageSize());
    return producer.status();
  }
  return RingBuffer::OfLoop(event_.get(), writer_.bytes, *consumer, *producer);
}

}  // namespace bpfgrant

#include "client/bpfgrant/user_ring_buffer.h"

#include <linux/bpf.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"

namespace bpfgrant {
namespace {

using Clock = std::chrono::steady_clock;

size_t PageSize() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", std::strerror(errno)));
}

absl::Status Broken(unsigned long position) {
  return absl::DataLossError(
      absl::StrCat("the user ring buffer's positions cannot be, at ", position,
                   ": somebody else writes it"));
}

size_t WholeBytes(size_t sample) {
  return (sample + BPF_RINGBUF_HDR_SZ + 7) & ~size_t{7};
}

int MillisecondsUntil(UserRingBuffer::Deadline deadline) {
  if (!deadline.has_value()) return -1;
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
  return static_cast<int>(
      std::clamp<std::chrono::milliseconds::rep>(left.count(), 0, 1 << 30));
}

}  // namespace

absl::StatusOr<UserRingBuffer> UserRingBuffer::Map(
    const Grant::Handle& handle) {
  if (handle.description.kind() != v1::HANDLE_KIND_USER_RING_BUFFER) {
    return absl::InvalidArgumentError(absl::StrCat(
        "handle '", handle.description.name(), "' is not a user ring buffer"));
  }
  return Map(handle.fd.get(), handle.description.max_entries());
}

absl::StatusOr<UserRingBuffer> UserRingBuffer::Map(int fd, size_t bytes) {
  const size_t page = PageSize();
  // A map's max_entries has 32 bits.
  if (!absl::has_single_bit(bytes) || bytes < page || bytes > 1u << 31) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes, " is no size of a user ring buffer"));
  }
  const void* consumer = mmap(nullptr, page, PROT_READ, MAP_SHARED, fd, 0);
  if (consumer == MAP_FAILED) return Failed("mmap of a user ring buffer");
  void* producer = mmap(nullptr, page + 2 * bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED, fd, static_cast<off_t>(page));
  if (producer == MAP_FAILED) {
    const absl::Status failed = Failed("mmap of a user ring buffer");
    munmap(const_cast<void*>(consumer), page);
    return failed;
  }
  return UserRingBuffer(fd, bytes, consumer, producer);
}

UserRingBuffer::UserRingBuffer(int fd, size_t bytes, const void* consumer,
                               void* producer)
    : fd_(fd), bytes_(bytes), consumer_(consumer), producer_(producer) {}

UserRingBuffer::UserRingBuffer(UserRingBuffer&& other) noexcept
    : fd_(other.fd_),
      bytes_(other.bytes_),
      consumer_(std::exchange(other.consumer_, nullptr)),
      producer_(std::exchange(other.producer_, nullptr)),
      drained_(std::move(other.drained_)) {}

UserRingBuffer::~UserRingBuffer() {
  if (producer_ == nullptr) return;
  munmap(const_cast<void*>(consumer_), PageSize());
  munmap(producer_, PageSize() + 2 * bytes_);
}

size_t UserRingBuffer::max_sample_bytes() const {
  return std::min(bytes_ - BPF_RINGBUF_HDR_SZ, kMaxSampleBytes);
}

size_t UserRingBuffer::pending() const {
  // In this order: the consumer never passes the producer.
  const unsigned long consumed = __atomic_load_n(
      static_cast<const unsigned long*>(consumer_), __ATOMIC_ACQUIRE);
  return __atomic_load_n(static_cast<unsigned long*>(producer_),
                         __ATOMIC_ACQUIRE) -
         consumed;
}

uint32_t* UserRingBuffer::HeaderAt(unsigned long position) const {
  return reinterpret_cast<uint32_t*>(static_cast<std::byte*>(producer_) +
                                     PageSize() + (position & (bytes_ - 1)));
}

uint32_t* UserRingBuffer::HeaderOf(absl::Span<std::byte> sample) const {
  return reinterpret_cast<uint32_t*>(sample.data() - BPF_RINGBUF_HDR_SZ);
}

absl::StatusOr<absl::Span<std::byte>> UserRingBuffer::Reserve(size_t bytes) {
  if (bytes > max_sample_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a sample of ", bytes, " bytes does not fit: ", max_sample_bytes(),
        " is the most"));
  }
  auto* const producer = static_cast<unsigned long*>(producer_);
  const unsigned long position = __atomic_load_n(producer, __ATOMIC_ACQUIRE);
  const size_t waiting = pending();
  if (waiting > bytes_ || position % 8 != 0) return Broken(position);
  if (WholeBytes(bytes) > bytes_ - waiting) {
    return absl::ResourceExhaustedError("the user ring buffer is full");
  }
  uint32_t* const header = HeaderAt(position);
  header[1] = 0;
  __atomic_store_n(&header[0],
                   static_cast<uint32_t>(bytes) | BPF_RINGBUF_BUSY_BIT,
                   __ATOMIC_RELAXED);
  __atomic_store_n(producer, position + WholeBytes(bytes), __ATOMIC_RELEASE);
  return absl::MakeSpan(
      reinterpret_cast<std::byte*>(header) + BPF_RINGBUF_HDR_SZ, bytes);
}

absl::StatusOr<absl::Span<std::byte>> UserRingBuffer::ReserveBlocking(
    size_t bytes, Deadline deadline) {
  for (;;) {
    auto sample = Reserve(bytes);
    if (!absl::IsResourceExhausted(sample.status())) return sample;
    const absl::Status waited = WaitForDrain(deadline);
    if (absl::IsDeadlineExceeded(waited)) {
      // A program may drain without waking.
      sample = Reserve(bytes);
      return absl::IsResourceExhausted(sample.status()) ? waited : sample;
    }
    if (!waited.ok()) return waited;
  }
}

absl::Status UserRingBuffer::WaitForDrain(Deadline deadline) {
  // poll(2) would return at once when there is room, however little. The first
  // wait may return at once, too.
  if (!drained_.valid()) {
    drained_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
    if (!drained_.valid()) return Failed("epoll_create1");
    epoll_event wanted{};
    wanted.events = EPOLLOUT | EPOLLET;
    if (epoll_ctl(drained_.get(), EPOLL_CTL_ADD, fd_, &wanted) < 0) {
      drained_.reset();
      return Failed("epoll_ctl");
    }
  }
  epoll_event event;
  const int ready =
      epoll_wait(drained_.get(), &event, 1, MillisecondsUntil(deadline));
  if (ready > 0) return absl::OkStatus();
  if (ready == 0) {
    return absl::DeadlineExceededError(
        "no program drained the user ring buffer in time");
  }
  if (errno == EINTR) return absl::CancelledError("a signal came");
  return Failed("epoll_wait");
}

// The header's word is only let go of: no other thread's store is before it.
void UserRingBuffer::Submit(absl::Span<std::byte> sample) {
  __atomic_store_n(HeaderOf(sample), static_cast<uint32_t>(sample.size()),
                   __ATOMIC_RELEASE);
}

void UserRingBuffer::Discard(absl::Span<std::byte> sample) {
  __atomic_store_n(
      HeaderOf(sample),
      static_cast<uint32_t>(sample.size()) | BPF_RINGBUF_DISCARD_BIT,
      __ATOMIC_RELEASE);
}

absl::StatusOr<size_t> UserRingBuffer::DiscardAbandoned() {
  const unsigned long end =
      __atomic_load_n(static_cast<unsigned long*>(producer_), __ATOMIC_ACQUIRE);
  size_t left = pending();
  if (left > bytes_ || end % 8 != 0) return Broken(end);
  size_t discarded = 0;
  while (left > 0) {
    uint32_t* const header = HeaderAt(end - left);
    const uint32_t word = __atomic_load_n(header, __ATOMIC_ACQUIRE);
    const uint32_t length =
        word & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);
    const size_t whole = WholeBytes(length);
    if (whole > left) return Broken(end - left);
    if ((word & BPF_RINGBUF_BUSY_BIT) != 0) {
      __atomic_store_n(header, length | BPF_RINGBUF_DISCARD_BIT,
                       __ATOMIC_RELEASE);
      ++discarded;
    }
    left -= whole;
  }
  return discarded;
}

}  // namespace bpfgrant

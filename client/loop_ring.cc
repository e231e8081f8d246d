#include "client/loop_ring.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/wire/ring.h"

namespace bpfgrant {
namespace {

// struct io_uring_region_desc and struct io_uring_mem_region_reg of Linux 6.13.
struct RegionDescription {
  uint64_t address;
  uint64_t bytes;
  uint32_t flags;
  uint32_t id;
  uint64_t mmap_offset;
  uint64_t reserved[4];
};
struct RegionRegistration {
  uint64_t description;
  uint64_t flags;
  uint64_t reserved[2];
};
static_assert(sizeof(RegionDescription) == 64);
static_assert(sizeof(RegionRegistration) == 32);
constexpr uint32_t kUserMemory = 1;  // IORING_MEM_REGION_TYPE_USER

// What most often lies behind it.
const char* Hint(int error) {
  switch (error) {
    case ENOMEM:
      return " (is RLIMIT_MEMLOCK large enough?)";
    case EPERM:
      return " (sysctl kernel.io_uring_disabled, or a seccomp filter?)";
    case EINVAL:
      return " (is this kernel too old?)";
    default:
      return "";
  }
}

absl::Status Failed(const char* what, int error) {
  return absl::InternalError(
      absl::StrCat(what, ": ", std::strerror(error), Hint(error)));
}

}  // namespace

absl::StatusOr<LoopRing> LoopRing::Make(uint32_t setup_flags,
                                        uint32_t sq_entries,
                                        uint32_t cq_entries) {
  io_uring_params params{};
  params.flags = setup_flags | kSetupDisabled | kSetupCqSize;
  params.cq_entries = cq_entries;
  UniqueFd fd(
      static_cast<int>(syscall(SYS_io_uring_setup, sq_entries, &params)));
  if (!fd.valid()) return Failed("io_uring_setup", errno);
  // Both queues are one region (IORING_FEAT_SINGLE_MMAP) on every kernel that
  // has loops.
  const size_t bytes =
      params.cq_off.cqes + size_t{params.cq_entries} * sizeof(io_uring_cqe);
  void* rings = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_POPULATE, fd.get(), IORING_OFF_CQ_RING);
  if (rings == MAP_FAILED) return Failed("mmap of a ring", errno);
  return LoopRing(std::move(fd), params, static_cast<std::byte*>(rings), bytes);
}

LoopRing::LoopRing(UniqueFd fd, const io_uring_params& params, std::byte* rings,
                   size_t bytes)
    : fd_(std::move(fd)),
      setup_flags_(params.flags),
      rings_(rings),
      bytes_(bytes),
      head_(reinterpret_cast<uint32_t*>(rings + params.cq_off.head)),
      tail_(reinterpret_cast<uint32_t*>(rings + params.cq_off.tail)),
      flags_(reinterpret_cast<uint32_t*>(rings + params.cq_off.flags)),
      mask_(params.cq_entries - 1),
      cqes_(reinterpret_cast<io_uring_cqe*>(rings + params.cq_off.cqes)) {}

LoopRing::LoopRing(LoopRing&& other) noexcept
    : fd_(std::move(other.fd_)),
      setup_flags_(other.setup_flags_),
      rings_(std::exchange(other.rings_, nullptr)),
      bytes_(other.bytes_),
      head_(other.head_),
      tail_(other.tail_),
      flags_(other.flags_),
      mask_(other.mask_),
      cqes_(other.cqes_),
      signals_(other.signals_) {}

LoopRing::~LoopRing() {
  if (rings_ != nullptr) munmap(rings_, bytes_);
}

absl::Status LoopRing::Register(unsigned call, const void* argument,
                                size_t count, const char* what) {
  if (syscall(SYS_io_uring_register, fd_.get(), call, argument, count) < 0) {
    return Failed(what, errno);
  }
  return absl::OkStatus();
}

absl::Status LoopRing::RegisterMemory(absl::Span<std::byte> memory) {
  if (memory.empty()) return absl::OkStatus();
  RegionDescription description{};
  description.address = reinterpret_cast<uintptr_t>(memory.data());
  description.bytes = memory.size();
  description.flags = kUserMemory;
  RegionRegistration registration{};
  registration.description = reinterpret_cast<uintptr_t>(&description);
  return Register(kRegisterMemoryRegion, &registration, 1,
                  "registering the loop's memory");
}

absl::Status LoopRing::RegisterBuffers(const std::vector<iovec>& buffers) {
  if (buffers.empty()) return absl::OkStatus();
  return Register(IORING_REGISTER_BUFFERS, buffers.data(), buffers.size(),
                  "registering buffers");
}

absl::Status LoopRing::RegisterFiles(const std::vector<int>& files) {
  if (files.empty()) return absl::OkStatus();
  return Register(IORING_REGISTER_FILES, files.data(), files.size(),
                  "registering files");
}

absl::Status LoopRing::Enable() {
  return Register(IORING_REGISTER_ENABLE_RINGS, nullptr, 0,
                  "enabling the ring");
}

int LoopRing::Enter() const {
  const long result = syscall(SYS_io_uring_enter, fd_.get(), 0, 0,
                              IORING_ENTER_GETEVENTS, nullptr, 0);
  return result < 0 ? -errno : 0;
}

const io_uring_cqe* LoopRing::Head() const {
  const uint32_t tail =
      std::atomic_ref<uint32_t>(*tail_).load(std::memory_order_acquire);
  return *head_ == tail ? nullptr : &cqes_[*head_ & mask_];
}

void LoopRing::Advance() {
  std::atomic_ref<uint32_t>(*head_).store(*head_ + 1,
                                          std::memory_order_release);
}

absl::Status LoopRing::SignalEventFd(int event, bool on) {
  if (on && !signals_) {
    absl::Status status =
        Register(IORING_REGISTER_EVENTFD, &event, 1, "registering an eventfd");
    if (!status.ok()) return status;
    signals_ = true;
  }
  std::atomic_ref<uint32_t>(*flags_).store(on ? 0 : IORING_CQ_EVENTFD_DISABLED,
                                           std::memory_order_relaxed);
  return absl::OkStatus();
}

}  // namespace bpfgrant

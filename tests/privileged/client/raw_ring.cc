#include "tests/privileged/client/raw_ring.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "proto/wire/ring.h"

namespace bpfgrant::test {
namespace {

constexpr size_t kPage = 4096;
constexpr unsigned int kRegisterResize = 33;  // IORING_REGISTER_RESIZE_RINGS

// struct io_uring_region_desc and struct io_uring_mem_region_reg, Linux 6.13.
struct RegionDescription {
  uint64_t address, size;
  uint32_t flags, id;
  uint64_t mmap_offset, reserved[4];
};
struct RegionRegistration {
  uint64_t region, flags, reserved[2];
};
constexpr uint32_t kUserMemory = 1;  // IORING_MEM_REGION_TYPE_USER

absl::Status Errno(const char* call) {
  return absl::InternalError(absl::StrCat(call, ": ", std::strerror(errno)));
}

int Result(long result) {
  return result < 0 ? -errno : static_cast<int>(result);
}

}  // namespace

absl::StatusOr<std::unique_ptr<RawRing>> RawRing::Make(uint32_t sq_entries,
                                                       uint32_t cq_entries,
                                                       uint32_t flags) {
  std::unique_ptr<RawRing> ring(new RawRing);
  io_uring_params& parameters = ring->parameters_;
  parameters.flags = flags;
  parameters.cq_entries = cq_entries;
  ring->fd_ = UniqueFd(
      static_cast<int>(syscall(SYS_io_uring_setup, sq_entries, &parameters)));
  if (!ring->fd_.valid()) return Errno("io_uring_setup");
  const auto map = [&](size_t bytes, uint64_t offset) {
    return mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                MAP_SHARED | MAP_POPULATE, ring->fd(),
                static_cast<off_t>(offset));
  };
  ring->head_bytes_ = parameters.cq_off.cqes +
                      parameters.cq_entries * sizeof(io_uring_cqe) +
                      parameters.sq_entries * sizeof(uint32_t);
  ring->sqes_bytes_ = parameters.sq_entries * sizeof(io_uring_sqe);
  void* head = map(ring->head_bytes_, IORING_OFF_SQ_RING);
  void* sqes = map(ring->sqes_bytes_, IORING_OFF_SQES);
  void* memory = mmap(nullptr, kPage, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (head == MAP_FAILED || sqes == MAP_FAILED || memory == MAP_FAILED) {
    return Errno("mmap");
  }
  ring->head_ = static_cast<RingHead*>(head);
  ring->sqes_ = static_cast<io_uring_sqe*>(sqes);
  ring->memory_ = static_cast<puppet_memory*>(memory);
  return ring;
}

RawRing::~RawRing() {
  if (head_ != nullptr) munmap(head_, head_bytes_);
  if (sqes_ != nullptr) munmap(sqes_, sqes_bytes_);
  if (memory_ != nullptr) munmap(memory_, kPage);
}

int RawRing::Register(unsigned int call, void* argument, unsigned int count) {
  return Result(
      syscall(SYS_io_uring_register, fd_.get(), call, argument, count));
}

int RawRing::RegisterMemory() {
  RegionDescription region{};
  region.address = reinterpret_cast<uintptr_t>(memory_);
  region.size = kPage;
  region.flags = kUserMemory;
  RegionRegistration registration{};
  registration.region = reinterpret_cast<uintptr_t>(&region);
  return Register(kRegisterMemoryRegion, &registration, 1);
}

int RawRing::Restrict(uint8_t operation) {
  io_uring_restriction rule{};
  rule.opcode = IORING_RESTRICTION_SQE_OP;
  rule.sqe_op = operation;
  return Register(kRegisterRestrictions, &rule, 1);
}

int RawRing::Resize(uint32_t sq_entries, uint32_t cq_entries) {
  io_uring_params parameters{};
  parameters.sq_entries = sq_entries;
  parameters.cq_entries = cq_entries;
  parameters.flags = kSetupCqSize;
  return Register(kRegisterResize, &parameters, 1);
}

int RawRing::Enable() { return EnableRing(fd_.get()); }

int RawRing::Enter(unsigned int submit, unsigned int wait) {
  return EnterRing(fd_.get(), submit, wait);
}

void RawRing::KeepAcrossExec() { fcntl(fd_.get(), F_SETFD, 0); }

int EnterRing(int fd, unsigned int submit, unsigned int wait) {
  return Result(syscall(SYS_io_uring_enter, fd, submit, wait,
                        IORING_ENTER_GETEVENTS, nullptr, 0));
}

int EnableRing(int fd) {
  return Result(
      syscall(SYS_io_uring_register, fd, kRegisterEnableRings, nullptr, 0));
}

}  // namespace bpfgrant::test

// A ring made by hand, with whatever flags an attacker likes, and everything
// that can be done to it.

#ifndef TESTS_PRIVILEGED_CLIENT_RAW_RING_H_
#define TESTS_PRIVILEGED_CLIENT_RAW_RING_H_

#include <linux/io_uring.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "bpfgrant/loop_status.h"
#include "proto/wire/unique_fd.h"
#include "tests/loop/attach/puppet.h"

namespace bpfgrant::test {

// struct io_rings, where the kernel puts the completion queue.
struct RingHead {
  uint32_t sq_head, sq_tail, cq_head, cq_tail;
  uint32_t unused[12];
  io_uring_cqe cqes[];
};

class RawRing {
 public:
  // kInternal: the errno of io_uring_setup(2) or mmap(2).
  static absl::StatusOr<std::unique_ptr<RawRing>> Make(uint32_t sq_entries,
                                                       uint32_t cq_entries,
                                                       uint32_t flags);
  ~RawRing();

  int fd() const { return fd_.get(); }
  io_uring_sqe* sqes() { return sqes_; }
  RingHead* head() { return head_; }
  puppet_memory* memory() { return memory_; }
  uint32_t sq_entries() const { return parameters_.sq_entries; }
  uint32_t cq_entries() const { return parameters_.cq_entries; }

  // Each 0 or -errno.
  int Register(unsigned int call, void* argument, unsigned int count);
  int RegisterMemory();
  int Restrict(uint8_t operation);
  int Resize(uint32_t sq_entries, uint32_t cq_entries);
  int Enable();
  int Enter(unsigned int submit, unsigned int wait);

  void Close() { fd_.reset(); }
  // Keeps the fd open across execve(2).
  void KeepAcrossExec();

 private:
  RawRing() = default;

  io_uring_params parameters_{};
  UniqueFd fd_;
  size_t head_bytes_ = 0, sqes_bytes_ = 0;
  RingHead* head_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  puppet_memory* memory_ = nullptr;
};

int EnterRing(int fd, unsigned int submit, unsigned int wait);
int EnableRing(int fd);

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_CLIENT_RAW_RING_H_

#include "tests/bench/loops/file_copy_by_hand.h"

#include <liburing.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bpfgrant::bench {
namespace {

constexpr int kFrom = 0, kTo = 1;  // slots

void Check(int result, const char* what) {
  if (result >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(-result));
  std::abort();
}

}  // namespace

HandCopy::HandCopy(Way way, int from, int to, uint32_t block, unsigned depth)
    : way_(way),
      block_(block),
      depth_(depth),
      ring_(std::max(64u, 2 * depth)),
      buffers_(static_cast<size_t>(block) * depth),
      lanes_(depth) {
  const int files[] = {from, to};
  Check(io_uring_register_files(ring_.get(), files, 2),
        "io_uring_register_files");
  const iovec buffer = {buffers_.data(), buffers_.size()};
  Check(io_uring_register_buffers(ring_.get(), &buffer, 1),
        "io_uring_register_buffers");
}

uint64_t HandCopy::Run(uint64_t size) {
  return way_ == Way::kRounds ? RunRounds(size) : RunLinked(size);
}

void HandCopy::Prepare(unsigned lane) {
  const Lane& at = lanes_[lane];
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  char* buffer = &buffers_[static_cast<size_t>(lane) * block_ + at.done];
  if (at.writing) {
    io_uring_prep_write_fixed(sqe, kTo, buffer, at.length - at.done,
                              at.offset + at.done, 0);
  } else {
    io_uring_prep_read_fixed(sqe, kFrom, buffer, at.length - at.done,
                             at.offset + at.done, 0);
  }
  sqe->flags |= IOSQE_FIXED_FILE;
  io_uring_sqe_set_data64(sqe, lane);
}

uint64_t HandCopy::RunRounds(uint64_t size) {
  uint64_t next = 0, written = 0;
  unsigned busy = 0;
  const auto begin = [&](unsigned lane) {
    if (next >= size) return false;
    const auto length =
        static_cast<uint32_t>(std::min<uint64_t>(block_, size - next));
    lanes_[lane] = {false, length, 0, next};
    next += length;
    Prepare(lane);
    return true;
  };
  for (unsigned lane = 0; lane < depth_; ++lane) busy += begin(lane);
  while (busy > 0) {
    ring_.SubmitAndWait(1);
    io_uring_cqe* cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(ring_.get(), head, cqe) {
      const auto lane = static_cast<unsigned>(cqe->user_data);
      Lane& at = lanes_[lane];
      ++seen;
      Check(cqe->res, at.writing ? "write" : "read");
      if (cqe->res == 0) std::abort();
      at.done += cqe->res;
      if (at.done < at.length) {
        Prepare(lane);
      } else if (!at.writing) {
        at.writing = true;
        at.done = 0;
        Prepare(lane);
      } else {
        written += at.length;
        if (!begin(lane)) --busy;
      }
    }
    io_uring_cq_advance(ring_.get(), seen);
  }
  return written;
}

// A short read breaks the link, which a file that nobody changes does not have.
uint64_t HandCopy::RunLinked(uint64_t size) {
  uint64_t written = 0;
  for (uint64_t next = 0; next < size;) {
    unsigned batch = 0;
    for (; batch < depth_ && next < size; ++batch) {
      const auto length =
          static_cast<uint32_t>(std::min<uint64_t>(block_, size - next));
      char* buffer = &buffers_[static_cast<size_t>(batch) * block_];
      io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
      io_uring_prep_read_fixed(sqe, kFrom, buffer, length, next, 0);
      sqe->flags |= IOSQE_FIXED_FILE | IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
      sqe = io_uring_get_sqe(ring_.get());
      io_uring_prep_write_fixed(sqe, kTo, buffer, length, next, 0);
      sqe->flags |= IOSQE_FIXED_FILE;
      next += length;
    }
    ring_.SubmitAndWait(batch);
    io_uring_cqe* cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(ring_.get(), head, cqe) {
      ++seen;
      Check(cqe->res, "copy");
      written += cqe->res;
    }
    io_uring_cq_advance(ring_.get(), seen);
  }
  return written;
}

}  // namespace bpfgrant::bench

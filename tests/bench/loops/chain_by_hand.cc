#include "tests/bench/loops/chain_by_hand.h"

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bpfgrant::bench {
namespace {

void Check(int result, const char* what) {
  if (result >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(-result));
  std::abort();
}

}  // namespace

HandRing::HandRing(unsigned entries) {
  Check(io_uring_queue_init(
            entries, &ring_,
            IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN),
        "io_uring_queue_init");
  Check(io_uring_register_ring_fd(&ring_), "io_uring_register_ring_fd");
}

HandRing::~HandRing() { io_uring_queue_exit(&ring_); }

void HandRing::SubmitAndWait(unsigned count) {
  Check(io_uring_submit_and_wait(&ring_, count), "io_uring_submit_and_wait");
  ++enters_;
}

HandFiles::HandFiles(Way way, unsigned depth, uint32_t length)
    : way_(way),
      depth_(depth),
      length_(length),
      ring_(std::max(64u, 4 * depth)),
      buffers_(static_cast<size_t>(depth) * length),
      lanes_(depth) {
  if (way == Way::kFd) return;
  const std::vector<int> none(depth, -1);
  Check(io_uring_register_files(ring_.get(), none.data(), depth),
        "io_uring_register_files");
}

uint64_t HandFiles::Run(const std::vector<std::string>& paths) {
  return way_ == Way::kLinked ? RunLinked(paths) : RunRounds(paths);
}

void HandFiles::Prepare(unsigned lane, const std::vector<std::string>& paths) {
  Lane& at = lanes_[lane];
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  const bool direct = way_ == Way::kDirect;
  const char* path = paths[at.path].c_str();
  switch (at.doing) {
    case Doing::kOpen:
      if (direct) {
        io_uring_prep_openat_direct(sqe, AT_FDCWD, path, O_RDONLY, 0, lane);
      } else {
        io_uring_prep_openat(sqe, AT_FDCWD, path, O_RDONLY, 0);
      }
      break;
    case Doing::kRead:
      io_uring_prep_read(sqe, at.fd, Buffer(lane), length_, at.offset);
      if (direct) io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
      break;
    case Doing::kClose:
      if (direct) {
        io_uring_prep_close_direct(sqe, lane);
      } else {
        io_uring_prep_close(sqe, at.fd);
      }
      break;
  }
  io_uring_sqe_set_data64(sqe, lane);
}

bool HandFiles::Decide(unsigned lane, int result, uint64_t* bytes) {
  Check(result, "request");
  Lane& at = lanes_[lane];
  switch (at.doing) {
    case Doing::kOpen:
      at.doing = Doing::kRead;
      at.fd = way_ == Way::kDirect ? static_cast<int>(lane) : result;
      at.offset = 0;
      return true;
    case Doing::kRead:
      *bytes += result;
      at.offset += result;
      if (static_cast<uint32_t>(result) < length_) at.doing = Doing::kClose;
      return true;
    case Doing::kClose:
      break;
  }
  return false;
}

uint64_t HandFiles::RunRounds(const std::vector<std::string>& paths) {
  size_t next = 0;
  unsigned busy = 0;
  uint64_t bytes = 0;
  const auto begin = [&](unsigned lane) {
    if (next == paths.size()) return false;
    lanes_[lane] = {Doing::kOpen, next++, -1, 0};
    Prepare(lane, paths);
    return true;
  };
  for (unsigned lane = 0; lane < depth_; ++lane) busy += begin(lane);
  while (busy > 0) {
    ring_.SubmitAndWait(1);
    io_uring_cqe* cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(ring_.get(), head, cqe) {
      const auto lane = static_cast<unsigned>(cqe->user_data);
      ++seen;
      if (Decide(lane, cqe->res, &bytes)) {
        Prepare(lane, paths);
      } else if (!begin(lane)) {
        --busy;
      }
    }
    io_uring_cq_advance(ring_.get(), seen);
  }
  return bytes;
}

// The read is heard of, and the close, before which its descriptor cannot be
// used again. That a read was short is what shows the end, and what would break
// an ordinary link.
void HandFiles::PrepareLinked(unsigned lane, const std::string& path) {
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  io_uring_prep_openat_direct(sqe, AT_FDCWD, path.c_str(), O_RDONLY, 0, lane);
  sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
  sqe = io_uring_get_sqe(ring_.get());
  io_uring_prep_read(sqe, static_cast<int>(lane), Buffer(lane), length_, 0);
  sqe->flags |= IOSQE_FIXED_FILE | IOSQE_IO_HARDLINK;
  sqe = io_uring_get_sqe(ring_.get());
  io_uring_prep_close_direct(sqe, lane);
}

uint64_t HandFiles::RunLinked(const std::vector<std::string>& paths) {
  uint64_t bytes = 0;
  for (size_t next = 0; next < paths.size();) {
    unsigned batch = 0;
    while (batch < depth_ && next < paths.size()) {
      PrepareLinked(batch++, paths[next++]);
    }
    ring_.SubmitAndWait(2 * batch);
    io_uring_cqe* cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(ring_.get(), head, cqe) {
      ++seen;
      Check(cqe->res, "request");
      // Longer files would have to be read on from here, which these are not.
      if (static_cast<uint32_t>(cqe->res) == length_) std::abort();
      bytes += cqe->res;
    }
    io_uring_cq_advance(ring_.get(), seen);
  }
  return bytes;
}

HandLists::HandLists(int file, unsigned depth)
    : file_(file), depth_(depth), ring_(std::max(64u, depth)), places_(depth) {
  Check(io_uring_register_files(ring_.get(), &file_, 1),
        "io_uring_register_files");
}

void HandLists::Prepare(unsigned lane, uint64_t offset) {
  io_uring_sqe* sqe = io_uring_get_sqe(ring_.get());
  io_uring_prep_read(sqe, 0, &places_[lane], sizeof(uint64_t), offset);
  io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
  io_uring_sqe_set_data64(sqe, lane);
}

uint64_t HandLists::Run(const std::vector<uint64_t>& starts) {
  size_t next = 0;
  unsigned busy = 0;
  uint64_t read = 0;
  const auto begin = [&](unsigned lane) {
    if (next == starts.size()) return false;
    Prepare(lane, starts[next++]);
    return true;
  };
  for (unsigned lane = 0; lane < depth_; ++lane) busy += begin(lane);
  while (busy > 0) {
    ring_.SubmitAndWait(1);
    io_uring_cqe* cqe;
    unsigned head, seen = 0;
    io_uring_for_each_cqe(ring_.get(), head, cqe) {
      const auto lane = static_cast<unsigned>(cqe->user_data);
      ++seen;
      Check(cqe->res, "read");
      if (cqe->res == sizeof(uint64_t)) {
        ++read;
        Prepare(lane, places_[lane]);
      } else if (!begin(lane)) {
        --busy;
      }
    }
    io_uring_cq_advance(ring_.get(), seen);
  }
  return read;
}

}  // namespace bpfgrant::bench

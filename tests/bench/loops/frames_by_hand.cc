#include "tests/bench/loops/frames_by_hand.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bpfgrant::bench {
namespace {

constexpr size_t kHeader = sizeof(frame_header);
constexpr int kGroup = 0;

void Check(int result, const char* what) {
  if (result >= 0) return;
  std::fprintf(stderr, "%s: %s\n", what, std::strerror(-result));
  std::abort();
}

}  // namespace

HandReader::HandReader(Way way, uint32_t length,
                       const std::vector<int>& sockets)
    : way_(way),
      streams_(sockets.size()),
      slabs_(kWorkers, length, SlabsFor(length) + sockets.size()) {
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                     IORING_SETUP_CQSIZE;
  parameters.cq_entries = 1024;
  Check(io_uring_queue_init_params(256, &ring_, &parameters), "io_uring");
  Check(io_uring_register_ring_fd(&ring_), "io_uring_register_ring_fd");
  Check(io_uring_register_files(&ring_, sockets.data(),
                                static_cast<unsigned>(sockets.size())),
        "io_uring_register_files");
  if (way_ == Way::kBulkMultishot) SetUpBuffers();
  for (uint32_t i = 0; i < streams_.size(); ++i) {
    Stream& stream = streams_[i];
    if (way_ == Way::kBulkCopyOut || way_ == Way::kBulkInPlace) {
      stream.staging = std::make_unique<std::byte[]>(kStaging);
    }
    Ask(i);
  }
}

HandReader::~HandReader() {
  io_uring_queue_exit(&ring_);
  if (buffers_ != nullptr) munmap(buffers_, kProvided * sizeof(io_uring_buf));
}

void HandReader::SetUpBuffers() {
  provided_.resize(kProvided * kProvidedBytes);
  void* memory =
      mmap(nullptr, kProvided * sizeof(io_uring_buf), PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  buffers_ = static_cast<io_uring_buf_ring*>(memory);
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<uintptr_t>(memory);
  registration.ring_entries = kProvided;
  registration.bgid = kGroup;
  Check(io_uring_register_buf_ring(&ring_, &registration, 0), "buffers");
  io_uring_buf_ring_init(buffers_);
  for (unsigned i = 0; i < kProvided; ++i) {
    io_uring_buf_ring_add(buffers_, provided_.data() + i * kProvidedBytes,
                          kProvidedBytes, i, kProvided - 1, i);
  }
  io_uring_buf_ring_advance(buffers_, kProvided);
}

void HandReader::Run(uint64_t frames) {
  while (sink_.frames < frames) {
    ++enters_;
    const int taken = io_uring_submit_and_wait(&ring_, 1);
    if (taken != -EINTR) Check(taken, "io_uring_submit_and_wait");
    unsigned head = 0;
    unsigned seen = 0;
    io_uring_cqe* cqe = nullptr;
    io_uring_for_each_cqe(&ring_, head, cqe) {
      ++seen;
      const auto index = static_cast<uint32_t>(cqe->user_data);
      if (way_ == Way::kBulkMultishot) {
        CameProvided(index, *cqe);
        continue;
      }
      Check(cqe->res, "recv");
      Came(index, static_cast<uint32_t>(cqe->res));
      Ask(index);
    }
    io_uring_cq_advance(&ring_, seen);
  }
}

void HandReader::Ask(uint32_t index) {
  Stream& stream = streams_[index];
  const int fd = static_cast<int>(index);
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  const auto header =
      reinterpret_cast<std::byte*>(&stream.header) + stream.have;
  if (way_ == Way::kBulkMultishot) {
    io_uring_prep_recv_multishot(sqe, fd, nullptr, 0, 0);
    sqe->buf_group = kGroup;
    sqe->flags |= IOSQE_BUFFER_SELECT;
  } else if (stream.staging != nullptr) {
    io_uring_prep_recv(sqe, fd, stream.staging.get() + stream.end,
                       kStaging - stream.end, 0);
  } else if (!stream.in_body) {
    io_uring_prep_recv(sqe, fd, header, kHeader - stream.have, 0);
  } else if (way_ == Way::kBodyAndHeader) {
    stream.vectors[0] = {stream.slab + stream.have,
                         stream.header.length - stream.have};
    stream.vectors[1] = {&stream.next, kHeader};
    io_uring_prep_readv(sqe, fd, stream.vectors, 2, 0);
  } else {
    io_uring_prep_recv(sqe, fd, stream.slab + stream.have,
                       stream.header.length - stream.have, MSG_WAITALL);
  }
  sqe->flags |= IOSQE_FIXED_FILE;
  io_uring_sqe_set_data64(sqe, index);
}

void HandReader::BeginBody(Stream& stream) {
  stream.in_body = true;
  stream.have = 0;
  stream.slab = slabs_.Of(stream.header.worker);
}

void HandReader::Came(uint32_t index, uint32_t bytes) {
  Stream& stream = streams_[index];
  if (stream.staging != nullptr) {
    CameBulk(stream, bytes);
  } else {
    CameDirect(stream, bytes);
  }
}

void HandReader::CameDirect(Stream& stream, uint32_t bytes) {
  if (!stream.in_body) {
    stream.have += bytes;
    if (stream.have == kHeader) BeginBody(stream);
    return;
  }
  const size_t rest = stream.header.length - stream.have;
  if (bytes < rest) {
    stream.have += bytes;
    return;
  }
  sink_.Take(stream.header.worker, stream.slab, stream.header.length);
  stream.in_body = false;
  stream.have = bytes - rest;
  if (way_ != Way::kBodyAndHeader) return;
  std::memcpy(&stream.header, &stream.next, stream.have);
  if (stream.have == kHeader) BeginBody(stream);
}

// Frames that are there, then what is left to the front of the buffer.
void HandReader::CameBulk(Stream& stream, uint32_t bytes) {
  stream.end += bytes;
  std::byte* const at = stream.staging.get();
  while (stream.end - stream.start >= kHeader) {
    frame_header header;
    std::memcpy(&header, at + stream.start, kHeader);
    if (stream.end - stream.start - kHeader < header.length) break;
    const std::byte* body = at + stream.start + kHeader;
    if (way_ == Way::kBulkCopyOut) {
      std::byte* const slab = slabs_.Of(header.worker);
      std::memcpy(slab, body, header.length);
      copied_ += header.length;
      body = slab;
    }
    sink_.Take(header.worker, body, header.length);
    stream.start += kHeader + header.length;
  }
  if (stream.start == stream.end) {
    stream.start = stream.end = 0;
  } else if (kStaging - stream.start < kHeader + kLongest) {
    std::memmove(at, at + stream.start, stream.end - stream.start);
    copied_ += stream.end - stream.start;
    stream.end -= stream.start;
    stream.start = 0;
  }
}

void HandReader::CameProvided(uint32_t index, const io_uring_cqe& cqe) {
  if (cqe.res == -ENOBUFS) return Ask(index);
  Check(cqe.res, "recv");
  const unsigned id = cqe.flags >> IORING_CQE_BUFFER_SHIFT;
  std::byte* const buffer = provided_.data() + id * kProvidedBytes;
  Feed(streams_[index], buffer, static_cast<size_t>(cqe.res));
  io_uring_buf_ring_add(buffers_, buffer, kProvidedBytes,
                        static_cast<unsigned short>(id), kProvided - 1, 0);
  io_uring_buf_ring_advance(buffers_, 1);
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) Ask(index);
}

// Copies bytes to where they belong, whole frames or pieces.
void HandReader::Feed(Stream& stream, const std::byte* data, size_t bytes) {
  while (bytes != 0) {
    size_t piece = 0;
    if (!stream.in_body) {
      piece = std::min(bytes, kHeader - stream.have);
      std::memcpy(reinterpret_cast<std::byte*>(&stream.header) + stream.have,
                  data, piece);
      stream.have += piece;
      if (stream.have == kHeader) BeginBody(stream);
    } else {
      piece = std::min<size_t>(bytes, stream.header.length - stream.have);
      std::memcpy(stream.slab + stream.have, data, piece);
      copied_ += piece;
      stream.have += piece;
    }
    data += piece;
    bytes -= piece;
    if (stream.in_body && stream.have == stream.header.length) {
      sink_.Take(stream.header.worker, stream.slab, stream.header.length);
      stream.in_body = false;
      stream.have = 0;
    }
  }
}

}  // namespace bpfgrant::bench

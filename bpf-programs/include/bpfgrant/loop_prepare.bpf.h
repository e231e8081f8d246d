// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
//
// liburing's io_uring_prep_* for loops in the kernel. Pointers are addresses in
// the process; the kernel checks them when the request runs.

#ifndef BPFGRANT_LOOP_PREPARE_BPF_H_
#define BPFGRANT_LOOP_PREPARE_BPF_H_

#include <bpfgrant/loop_kernel.bpf.h>

// <sys/socket.h> is not for BPF.
#define MSG_PEEK 0x2
#define MSG_WAITALL 0x100
#define MSG_NOSIGNAL 0x4000

static __always_inline void io_uring_sqe_set_data64(struct io_uring_sqe* sqe,
                                                    __u64 data) {
  sqe->user_data = data;
}

static __always_inline __u64
io_uring_cqe_get_data64(const struct io_uring_cqe* cqe) {
  return *(const volatile __u64*)&cqe->user_data;
}

static __always_inline void io_uring_sqe_set_flags(struct io_uring_sqe* sqe,
                                                   unsigned flags) {
  sqe->flags = flags;
}

static __always_inline void io_uring_prep_rw(int op, struct io_uring_sqe* sqe,
                                             int fd, const void* addr,
                                             unsigned len, __u64 offset) {
  sqe->opcode = op;
  sqe->flags = 0;
  sqe->ioprio = 0;
  sqe->fd = fd;
  sqe->off = offset;
  sqe->addr = (__u64)addr;
  sqe->len = len;
  sqe->rw_flags = 0;
  sqe->user_data = 0;
  sqe->buf_index = 0;
  sqe->personality = 0;
  sqe->file_index = 0;
  sqe->addr3 = 0;
  sqe->__pad2[0] = 0;
}

static __always_inline void io_uring_prep_nop(struct io_uring_sqe* sqe) {
  io_uring_prep_rw(IORING_OP_NOP, sqe, -1, NULL, 0, 0);
}

static __always_inline void io_uring_prep_read(struct io_uring_sqe* sqe, int fd,
                                               void* buf, unsigned nbytes,
                                               __u64 offset) {
  io_uring_prep_rw(IORING_OP_READ, sqe, fd, buf, nbytes, offset);
}

static __always_inline void io_uring_prep_write(struct io_uring_sqe* sqe,
                                                int fd, const void* buf,
                                                unsigned nbytes, __u64 offset) {
  io_uring_prep_rw(IORING_OP_WRITE, sqe, fd, buf, nbytes, offset);
}

// <sys/uio.h> is not for BPF.
struct iovec {
  __u64 iov_base;
  __u64 iov_len;
};

static __always_inline void io_uring_prep_readv(struct io_uring_sqe* sqe,
                                                int fd,
                                                const struct iovec* iovecs,
                                                unsigned nr_vecs,
                                                __u64 offset) {
  io_uring_prep_rw(IORING_OP_READV, sqe, fd, iovecs, nr_vecs, offset);
}

static __always_inline void io_uring_prep_read_fixed(struct io_uring_sqe* sqe,
                                                     int fd, void* buf,
                                                     unsigned nbytes,
                                                     __u64 offset,
                                                     int buf_index) {
  io_uring_prep_rw(IORING_OP_READ_FIXED, sqe, fd, buf, nbytes, offset);
  sqe->buf_index = buf_index;
}

static __always_inline void io_uring_prep_write_fixed(struct io_uring_sqe* sqe,
                                                      int fd, const void* buf,
                                                      unsigned nbytes,
                                                      __u64 offset,
                                                      int buf_index) {
  io_uring_prep_rw(IORING_OP_WRITE_FIXED, sqe, fd, buf, nbytes, offset);
  sqe->buf_index = buf_index;
}

static __always_inline void io_uring_prep_recv(struct io_uring_sqe* sqe,
                                               int sockfd, void* buf,
                                               unsigned len, int flags) {
  io_uring_prep_rw(IORING_OP_RECV, sqe, sockfd, buf, len, 0);
  sqe->msg_flags = flags;
}

struct msghdr;

static __always_inline void io_uring_prep_recvmsg(struct io_uring_sqe* sqe,
                                                  int fd,
                                                  const struct msghdr* msg,
                                                  unsigned flags) {
  io_uring_prep_rw(IORING_OP_RECVMSG, sqe, fd, msg, 1, 0);
  sqe->msg_flags = flags;
}

static __always_inline void io_uring_prep_send(struct io_uring_sqe* sqe,
                                               int sockfd, const void* buf,
                                               unsigned len, int flags) {
  io_uring_prep_rw(IORING_OP_SEND, sqe, sockfd, buf, len, 0);
  sqe->msg_flags = flags;
}

static __always_inline void io_uring_prep_openat(struct io_uring_sqe* sqe,
                                                 int dfd, const char* path,
                                                 int flags, unsigned mode) {
  io_uring_prep_rw(IORING_OP_OPENAT, sqe, dfd, path, mode, 0);
  sqe->open_flags = flags;
}

static __always_inline void io_uring_prep_close(struct io_uring_sqe* sqe,
                                                int fd) {
  io_uring_prep_rw(IORING_OP_CLOSE, sqe, fd, NULL, 0, 0);
}

static __always_inline void io_uring_prep_fsync(struct io_uring_sqe* sqe,
                                                int fd, unsigned fsync_flags) {
  io_uring_prep_rw(IORING_OP_FSYNC, sqe, fd, NULL, 0, 0);
  sqe->fsync_flags = fsync_flags;
}

static __always_inline void io_uring_prep_poll_add(struct io_uring_sqe* sqe,
                                                   int fd, unsigned poll_mask) {
  io_uring_prep_rw(IORING_OP_POLL_ADD, sqe, fd, NULL, 0, 0);
  sqe->poll32_events = poll_mask;
}

static __always_inline void io_uring_prep_shutdown(struct io_uring_sqe* sqe,
                                                   int fd, int how) {
  io_uring_prep_rw(IORING_OP_SHUTDOWN, sqe, fd, NULL, how, 0);
}

#endif  // BPFGRANT_LOOP_PREPARE_BPF_H_

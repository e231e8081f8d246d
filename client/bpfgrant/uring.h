// The same through the caller's own io_uring: requests prepared on SQEs of its
// ring, completed like any other.
//
// Needs liburing's types only; what its version 2.3 does not name is spelled
// out here.

#ifndef BPFGRANT_URING_H_
#define BPFGRANT_URING_H_

#include <liburing.h>

#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/ring_buffer.h"

namespace bpfgrant {

// Prepares a setsockopt that attaches `*program` to `socket`
// (IORING_OP_URING_CMD with SOCKET_URING_OP_SETSOCKOPT, Linux 6.7). `program`
// must stay valid until the completion, whose result is 0 or -errno;
// -EOPNOTSUPP: this kernel has no such command, use AttachBySetsockopt.
void PrepareAttach(io_uring_sqe* sqe, int socket, const int* program,
                   SocketHook hook);

// Prepares a multishot poll on a ring buffer: a completion each time samples
// come, for as long as it has IORING_CQE_F_MORE. Then Consume.
void PreparePoll(io_uring_sqe* sqe, const RingBuffer& ring_buffer);

}  // namespace bpfgrant

#endif  // BPFGRANT_URING_H_

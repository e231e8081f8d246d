// The process in which a loop meets a client's ring. Whatever the client does
// to that ring meanwhile, it is this process that waits and not the loader.
//
// Linux 7.2 takes a lock of the whole machine's for the link
// (io_bpf_ctrl_mutex, io_uring/bpf-ops.c) and, while it holds that, the ring's
// own, which the client can keep for itself. So there are two parts: the first,
// which every child does when it likes, touches the ring alone; for the second,
// the link, one child at a time is given its turn.

#ifndef DAEMON_LOADER_LOOP_CHILD_H_
#define DAEMON_LOADER_LOOP_CHILD_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "daemon/loader/loop_manifest.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// What a child says to the loader.
struct LoopWord {
  enum Kind : uint32_t { kReady = 1, kDone = 2 };
  enum Step : uint32_t {
    kNone = 0,
    kTakeRing,    // pidfd_getfd(2)
    kLookAtRing,  // it is no ring
    kGeometry,    // of other entries than the manifest says
    kRestrict,    // IORING_REGISTER_RESTRICTIONS
    kLink,        // BPF_LINK_CREATE, BPF_LINK_DETACH
  };
  Kind kind = kReady;
  Step failed = kNone;
  int32_t error = 0;  // errno
  uint32_t sq_entries = 0;
  uint32_t cq_entries = 0;
};

struct LoopAttachment {
  int structure;  // map of struct io_uring_bpf_ops
  int pidfd;
  int ring;  // its number in that process
  const v1::Manifest::Loop* loop;
  const LoopRights* rights;
};

// In a child of `parent`. Says kReady on `socket`, waits there for its turn,
// makes the link, says kDone with it, and ends.
[[noreturn]] void AttachLoopAndExit(const LoopAttachment& attachment,
                                    int socket, pid_t parent,
                                    const Mitigations& mitigations);

// In a child that has its turn already. Says kDone and ends.
[[noreturn]] void DetachLoopAndExit(int link, int socket, pid_t parent);

// The user whose process this is, as the kernel says; none: it is gone, or that
// is no pidfd.
std::optional<uint32_t> UserOf(int pidfd);

// In a child: kills every process of `uid` that has an io_uring open, or with
// `all` every process of it, and ends. Which of them holds the lock that is
// waited for, the kernel does not tell.
[[noreturn]] void KillOwnersOfRingsAndExit(uint32_t uid, bool all);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LOOP_CHILD_H_

// What clients send to have a program attached to it: what each kind takes, and
// what the kernel's answers mean.
//
// It must not fork or wait for anybody: attach.h does.

#ifndef DAEMON_LOADER_TARGET_H_
#define DAEMON_LOADER_TARGET_H_

#include "absl/status/status.h"
#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant::daemon {

// Puts `program` on the client's `fd`, if that is a `target`, and locks a
// socket's filter there if `lock` says so. Returns 0 or an errno. System calls
// only, no memory is allocated: for a child after fork(2). May wait for locks
// that a client holds.
int PutOn(int fd, int program, v1::Target target, bool lock);

// What PutOn's answer means to whoever sent the fd: OK, REASON_ATTACH_FAILED,
// REASON_SOCKET_UNSUITABLE or REASON_TUN_UNSUITABLE.
absl::Status StatusOfPutOn(int error, v1::Target target);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_TARGET_H_

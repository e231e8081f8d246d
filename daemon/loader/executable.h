// What a process executes: the file's path and its digests, as rules of the
// policy name them.

#ifndef DAEMON_LOADER_EXECUTABLE_H_
#define DAEMON_LOADER_EXECUTABLE_H_

#include <cstddef>

#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// No larger file is read for its digest.
inline constexpr size_t kMaxExecutableBytes = size_t{1} << 30;

// What `wanted` asks for, of the process of `pidfd`. Without CAP_SYS_PTRACE
// that is nothing, of processes of other users.
//
// The path is known if it leads this process to the very file: not of a file
// that was replaced or deleted, nor of one that the client's mount namespace
// alone has there. Digests are known on file systems where an executable that
// runs is kept from being written, and that no user serves: ext4, xfs, btrfs,
// f2fs, erofs, squashfs. (On tmpfs a registered buffer of io_uring's writes it
// all the same; Linux 6.11 and early 6.12 let anybody write.) Only fs-verity
// binds what is executed.
//
// Nothing is known if the process executed another file meanwhile, or the file
// was changed just before or meanwhile.
//
// May wait for a client who serves the file system, and die of a file that
// shrinks: for a child (children.h).
ExecutableReply ReadExecutable(const ExecutableRequest& wanted, int pidfd,
                               const Mitigations& mitigations);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_EXECUTABLE_H_

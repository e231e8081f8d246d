// Rights of a map's fd, as the manifest has them and as the kernel does.

#ifndef DAEMON_LOADER_RIGHTS_H_
#define DAEMON_LOADER_RIGHTS_H_

#include <linux/bpf.h>
#include <fcntl.h>

#include <cstdint>

#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant::daemon {

// BPF_F_RDONLY and BPF_F_WRONLY are rights of the fd that BPF_MAP_CREATE
// returns, not of the map: map_create() derives that fd's mode from them
// (bpf_get_file_flag) and takes them off the map's own flags
// (bpf_map_flags_retain_permanent, kernel/bpf/syscall.c). Programs reach the
// map by reference, not through the fd, so they keep reading and writing.
inline uint32_t CreateFlagsOf(v1::Rights rights) {
  switch (rights) {
    case v1::RIGHTS_READ:
      return BPF_F_RDONLY;
    case v1::RIGHTS_WRITE:
      return BPF_F_WRONLY;
    default:
      return 0;
  }
}

// Whether `fd` has these rights and no more. The comment above is about kernels
// seen; this one has to show it.
inline bool HasRights(int fd, v1::Rights rights) {
  const int mode = rights == v1::RIGHTS_READ    ? O_RDONLY
                   : rights == v1::RIGHTS_WRITE ? O_WRONLY
                                                : O_RDWR;
  return (fcntl(fd, F_GETFL) & O_ACCMODE) == mode;
}

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_RIGHTS_H_

#include "daemon/loader/target.h"

#include <linux/if_tun.h>
#include <linux/major.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// The kernel's own, which user space has no name for.
constexpr int kNotSupported = 524;

// /dev/net/tun, by whatever name (Documentation/admin-guide/devices.txt).
constexpr unsigned int kTunMinor = 200;

int PutOnSocket(int socket, int program, int option, bool lock) {
  struct stat info;
  if (fstat(socket, &info) < 0) return errno;
  if (!S_ISSOCK(info.st_mode)) return ENOTSOCK;
  if (setsockopt(socket, SOL_SOCKET, option, &program, sizeof(program)) < 0) {
    return errno;
  }
  if (!lock) return 0;
  const int on = 1;
  if (setsockopt(socket, SOL_SOCKET, SO_LOCK_FILTER, &on, sizeof(on)) < 0) {
    const int error = errno;
    setsockopt(socket, SOL_SOCKET, SO_DETACH_BPF, &on, sizeof(on));
    return error;
  }
  return 0;
}

// The fd's kind comes first: what the numbers of tun's ioctls mean to a file of
// another kind, that file's driver says.
int PutOnTun(int queue, int program) {
  struct stat info;
  if (fstat(queue, &info) < 0) return errno;
  if (!S_ISCHR(info.st_mode) ||
      info.st_rdev != makedev(MISC_MAJOR, kTunMinor)) {
    return ENOTTY;
  }
  ifreq device{};
  if (ioctl(queue, TUNGETIFF, &device) < 0) return errno;
  if ((device.ifr_flags & IFF_DETACH_QUEUE) != 0) return ENOTCONN;
  return ioctl(queue, TUNSETSTEERINGEBPF, &program) < 0 ? errno : 0;
}

absl::Status Unsuitable(v1::Target target, std::string_view what) {
  return Refuse(target == v1::TARGET_TUN ? v1::REASON_TUN_UNSUITABLE
                                         : v1::REASON_SOCKET_UNSUITABLE,
                what);
}

}  // namespace

int PutOn(int fd, int program, v1::Target target, bool lock) {
  switch (target) {
    case v1::TARGET_SOCKET:
      return PutOnSocket(fd, program, SO_ATTACH_BPF, lock);
    case v1::TARGET_REUSEPORT:
      // Belongs to the whole group of sockets; locking one of them would bind
      // that one only.
      return PutOnSocket(fd, program, SO_ATTACH_REUSEPORT_EBPF, false);
    case v1::TARGET_TUN:
      return PutOnTun(fd, program);
    default:
      return EOPNOTSUPP;
  }
}

absl::Status StatusOfPutOn(int error, v1::Target target) {
  switch (error) {
    case 0:
      return absl::OkStatus();
    case EBADF:
      return Unsuitable(target, "the fd was opened with O_PATH");
    case ENOTSOCK:
      return Unsuitable(target, "the fd is not a socket");
    case ENOTTY:
      return Unsuitable(target, "the fd is not one of /dev/net/tun");
    case EBADFD:
      return Unsuitable(target, "the fd has no tun or tap device (TUNSETIFF)");
    case ENOTCONN:
      return Unsuitable(target,
                        "the fd's queue is detached (IFF_DETACH_QUEUE)");
    case EINVAL:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case kNotSupported:
    case EPROTONOSUPPORT:
    case EAFNOSUPPORT:
      return Unsuitable(
          target,
          absl::StrCat("a ", target == v1::TARGET_TUN ? "device" : "socket",
                       " of this kind, or in this state, takes no such "
                       "program (errno ",
                       error, ")"));
    case EPERM:
      if (target == v1::TARGET_TUN) break;
      return Refuse(v1::REASON_ATTACH_FAILED,
                    "the socket's filter is locked already (SO_LOCK_FILTER)");
    default:
      break;
  }
  return Refuse(v1::REASON_ATTACH_FAILED,
                absl::StrCat("attaching: ", std::strerror(error)));
}

}  // namespace bpfgrant::daemon

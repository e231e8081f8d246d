#include "client/bpfgrant/attach.h"

#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant {
namespace {

// `attach` is for a program whose fd came.
template <typename Hook>
absl::StatusOr<Grant> AcquireAndAttach(Connection& connection,
                                       Connection::AcquireOptions options,
                                       int target, Hook hook,
                                       absl::Status (*attach)(int, int, Hook)) {
  options.delivery = v1::DELIVERY_ANY;
  options.target = target;
  absl::StatusOr<Grant> grant = connection.Acquire(options);
  if (!grant.ok() || grant->delivery() == v1::DELIVERY_ATTACH) return grant;
  if (absl::Status status = attach(target, grant->program_fd(), hook);
      !status.ok()) {
    return status;
  }
  return grant;
}

}  // namespace

absl::Status AttachBySetsockopt(int socket, int program, SocketHook hook) {
  const int option =
      hook == SocketHook::kFilter ? SO_ATTACH_BPF : SO_ATTACH_REUSEPORT_EBPF;
  if (setsockopt(socket, SOL_SOCKET, option, &program, sizeof(program)) < 0) {
    return absl::InternalError(
        absl::StrCat("attaching by setsockopt: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::Status AttachByIoctl(int queue, int program, TunHook) {
  if (ioctl(queue, TUNSETSTEERINGEBPF, &program) < 0) {
    return absl::InternalError(
        absl::StrCat("attaching by ioctl: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::StatusOr<Grant> AttachTo(Connection& connection,
                               Connection::AcquireOptions options, int socket,
                               SocketHook hook) {
  return AcquireAndAttach(connection, std::move(options), socket, hook,
                          AttachBySetsockopt);
}

absl::StatusOr<Grant> AttachTo(Connection& connection,
                               Connection::AcquireOptions options, int queue,
                               TunHook hook) {
  return AcquireAndAttach(connection, std::move(options), queue, hook,
                          AttachByIoctl);
}

}  // namespace bpfgrant

#include "client/bpfgrant/attach.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant {

absl::Status AttachBySetsockopt(int socket, int program, SocketHook hook) {
  const int option =
      hook == SocketHook::kFilter ? SO_ATTACH_BPF : SO_ATTACH_REUSEPORT_EBPF;
  if (setsockopt(socket, SOL_SOCKET, option, &program, sizeof(program)) < 0) {
    return absl::InternalError(
        absl::StrCat("attaching by setsockopt: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

absl::StatusOr<Grant> AttachTo(Connection& connection,
                               Connection::AcquireOptions options, int socket,
                               SocketHook hook) {
  options.delivery = v1::DELIVERY_ANY;
  options.socket = socket;
  absl::StatusOr<Grant> grant = connection.Acquire(options);
  if (!grant.ok() || grant->delivery() == v1::DELIVERY_ATTACH) return grant;
  if (absl::Status status =
          AttachBySetsockopt(socket, grant->program_fd(), hook);
      !status.ok()) {
    return status;
  }
  return grant;
}

}  // namespace bpfgrant

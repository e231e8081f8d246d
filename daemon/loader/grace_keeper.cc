#include "daemon/loader/grace_keeper.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant::daemon {
namespace {

struct Keeper {
  UniqueFd socket, inner, outer;
};

// A byte in, a byte out; false: there is nobody any more.
bool IsAsked(int socket) {
  char byte;
  ssize_t length;
  do {
    length = recv(socket, &byte, 1, 0);
  } while (length < 0 && errno == EINTR);
  return length == 1;
}
bool Answer(int socket) {
  ssize_t length;
  do {
    length = send(socket, "", 1, MSG_NOSIGNAL);
  } while (length < 0 && errno == EINTR);
  return length == 1;
}

void Keep(const Keeper& keeper) {
  const uint32_t key = 0;
  const int inner = keeper.inner.get();
  while (IsAsked(keeper.socket.get()) &&
         bpf_map_update_elem(keeper.outer.get(), &key, &inner, BPF_ANY) == 0 &&
         Answer(keeper.socket.get())) {
  }
}

absl::Status Failed(const char* what) {
  return absl::InternalError(
      absl::StrCat("grace periods: ", what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<UniqueFd> StartGraceKeeper() {
  Keeper keeper;
  keeper.inner =
      UniqueFd(bpf_map_create(BPF_MAP_TYPE_ARRAY, "bpfgrant_grace",
                              sizeof(uint32_t), sizeof(uint32_t), 1, nullptr));
  if (!keeper.inner.valid()) return Failed("making a map");
  LIBBPF_OPTS(bpf_map_create_opts, options,
              .inner_map_fd = static_cast<uint32_t>(keeper.inner.get()));
  keeper.outer =
      UniqueFd(bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, "bpfgrant_graces",
                              sizeof(uint32_t), sizeof(uint32_t), 1, &options));
  if (!keeper.outer.valid()) return Failed("making an array of maps");
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
    return Failed("socketpair");
  }
  keeper.socket = UniqueFd(ends[0]);
  UniqueFd brokers(ends[1]);
  try {
    std::thread([keeper = std::move(keeper)] { Keep(keeper); }).detach();
  } catch (const std::system_error& error) {
    return absl::InternalError(
        absl::StrCat("grace periods: a thread: ", error.what()));
  }
  return brokers;
}

}  // namespace bpfgrant::daemon

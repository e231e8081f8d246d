#include "daemon/loader/loop_operations.h"

#include <algorithm>
#include <array>

namespace bpfgrant::daemon {
namespace {

constexpr std::string_view kNotExamined =
    "nobody has followed its paths in the kernel yet";
constexpr std::string_view kCommand =
    "SOCKET_URING_OP_SETSOCKOPT reaches sockopt_capable() and "
    "sockopt_lock_sock(), which ask (net/core/sock.c)";
constexpr std::string_view kControlMessage =
    "its control messages reach sk_set_prio_allowed(), which asks through "
    "sockopt_ns_capable() (net/core/sock.c)";
constexpr std::string_view kFileRead =
    "io_uring/rw.c: the file's read_iter; a socket's is sock_read_iter(), "
    "recvmsg without options";
constexpr std::string_view kFileWrite =
    "io_uring/rw.c: the file's write_iter; a socket's is sock_write_iter(), "
    "sendmsg without control messages";
constexpr std::string_view kOpen =
    "io_uring/openclose.c: do_filp_open(), file systems only";
constexpr std::string_view kClose =
    "io_uring/openclose.c: filp_close(); a socket's last reference is dropped "
    "in task work, outside of the program";
constexpr std::string_view kReceive =
    "io_uring/net.c: sock_recvmsg() takes the socket's lock itself; no option "
    "is set";
constexpr std::string_view kSend =
    "io_uring/net.c: io_send() leaves msg_control null, so no control message "
    "is read";
constexpr std::string_view kRing =
    "io_uring's own structures, no file and no socket";
constexpr std::string_view kName = "fs/namei.c: file systems only";
constexpr std::string_view kPipe =
    "fs/splice.c: a socket's side is splice_to_socket(), sendmsg with pages "
    "and without control messages";

constexpr std::array kOperations = {
    LoopOperation{"NOP", 0, true, kRing},
    LoopOperation{"READV", 1, true, kFileRead},
    LoopOperation{"WRITEV", 2, true, kFileWrite},
    LoopOperation{"FSYNC", 3, true, "io_uring/sync.c: vfs_fsync_range()"},
    LoopOperation{"READ_FIXED", 4, true, kFileRead},
    LoopOperation{"WRITE_FIXED", 5, true, kFileWrite},
    LoopOperation{"POLL_ADD", 6, true, "io_uring/poll.c: the file's poll"},
    LoopOperation{"POLL_REMOVE", 7, true, kRing},
    LoopOperation{"SYNC_FILE_RANGE", 8, true,
                  "io_uring/sync.c: sync_file_range()"},
    LoopOperation{"SENDMSG", 9, false, kControlMessage},
    LoopOperation{"RECVMSG", 10, true, kReceive},
    LoopOperation{"TIMEOUT", 11, true, kRing},
    LoopOperation{"TIMEOUT_REMOVE", 12, true, kRing},
    LoopOperation{"ACCEPT", 13, true,
                  "io_uring/net.c: do_accept(); options are inherited, none "
                  "is set"},
    LoopOperation{"ASYNC_CANCEL", 14, true, kRing},
    LoopOperation{"LINK_TIMEOUT", 15, true, kRing},
    LoopOperation{"CONNECT", 16, false, kNotExamined},
    LoopOperation{"FALLOCATE", 17, true, "io_uring/sync.c: vfs_fallocate()"},
    LoopOperation{"OPENAT", 18, true, kOpen},
    LoopOperation{"CLOSE", 19, true, kClose},
    LoopOperation{"FILES_UPDATE", 20, true, kRing},
    LoopOperation{"STATX", 21, true, "io_uring/statx.c: do_statx()"},
    LoopOperation{"READ", 22, true, kFileRead},
    LoopOperation{"WRITE", 23, true, kFileWrite},
    LoopOperation{"FADVISE", 24, true, "io_uring/advise.c: vfs_fadvise()"},
    LoopOperation{"MADVISE", 25, true, "io_uring/advise.c: do_madvise()"},
    LoopOperation{"SEND", 26, true, kSend},
    LoopOperation{"RECV", 27, true, kReceive},
    LoopOperation{"OPENAT2", 28, true, kOpen},
    LoopOperation{"EPOLL_CTL", 29, false, kNotExamined},
    LoopOperation{"SPLICE", 30, true, kPipe},
    LoopOperation{"PROVIDE_BUFFERS", 31, true, kRing},
    LoopOperation{"REMOVE_BUFFERS", 32, true, kRing},
    LoopOperation{"TEE", 33, true, "fs/splice.c: pipes only"},
    LoopOperation{"SHUTDOWN", 34, true,
                  "io_uring/net.c: the protocol's shutdown, under its own "
                  "lock_sock() (inet_shutdown(), unix_shutdown())"},
    LoopOperation{"RENAMEAT", 35, true, kName},
    LoopOperation{"UNLINKAT", 36, true, kName},
    LoopOperation{"MKDIRAT", 37, true, kName},
    LoopOperation{"SYMLINKAT", 38, true, kName},
    LoopOperation{"LINKAT", 39, true, kName},
    LoopOperation{"MSG_RING", 40, false,
                  "it reaches into other rings, which nothing restricts"},
    LoopOperation{"FSETXATTR", 41, false, kNotExamined},
    LoopOperation{"SETXATTR", 42, false, kNotExamined},
    LoopOperation{"FGETXATTR", 43, false, kNotExamined},
    LoopOperation{"GETXATTR", 44, false, kNotExamined},
    LoopOperation{"SOCKET", 45, false, kNotExamined},
    LoopOperation{"URING_CMD", 46, false, kCommand},
    LoopOperation{"SEND_ZC", 47, true, kSend},
    LoopOperation{"SENDMSG_ZC", 48, false, kControlMessage},
    LoopOperation{"READ_MULTISHOT", 49, true, kFileRead},
    LoopOperation{"WAITID", 50, false, kNotExamined},
    LoopOperation{"FUTEX_WAIT", 51, false, kNotExamined},
    LoopOperation{"FUTEX_WAKE", 52, false, kNotExamined},
    LoopOperation{"FUTEX_WAITV", 53, false, kNotExamined},
    LoopOperation{"FIXED_FD_INSTALL", 54, true,
                  "io_uring/openclose.c: receive_fd()"},
    LoopOperation{"FTRUNCATE", 55, true, "io_uring/truncate.c: do_ftruncate()"},
    LoopOperation{"BIND", 56, false, kNotExamined},
    LoopOperation{"LISTEN", 57, false, kNotExamined},
    LoopOperation{"RECV_ZC", 58, false, kNotExamined},
    LoopOperation{"EPOLL_WAIT", 59, false, kNotExamined},
    LoopOperation{"READV_FIXED", 60, true, kFileRead},
    LoopOperation{"WRITEV_FIXED", 61, true, kFileWrite},
    LoopOperation{"PIPE", 62, false, kNotExamined},
    LoopOperation{"NOP128", 63, false, "its entry is as large as two"},
    LoopOperation{"URING_CMD128", 64, false, kCommand},
};

constexpr std::array kRequestFlags = {
    NamedNumber{"FIXED_FILE", 1 << 0},
    NamedNumber{"IO_DRAIN", 1 << 1},
    NamedNumber{"IO_LINK", 1 << 2},
    NamedNumber{"IO_HARDLINK", 1 << 3},
    NamedNumber{"ASYNC", 1 << 4},
    NamedNumber{"BUFFER_SELECT", 1 << 5},
    NamedNumber{"CQE_SKIP_SUCCESS", 1 << 6},
};

// As in linux/io_uring.h. Not here: personalities and CLONE_BUFFERS, which
// bring rights from elsewhere, RESIZE_RINGS and MEM_REGION, which change the
// ring, restrictions, and what nobody has examined.
constexpr std::array kRegisterCalls = {
    NamedNumber{"BUFFERS", 0},      NamedNumber{"UNREGISTER_BUFFERS", 1},
    NamedNumber{"FILES", 2},        NamedNumber{"UNREGISTER_FILES", 3},
    NamedNumber{"EVENTFD", 4},      NamedNumber{"UNREGISTER_EVENTFD", 5},
    NamedNumber{"FILES_UPDATE", 6}, NamedNumber{"EVENTFD_ASYNC", 7},
    NamedNumber{"PROBE", 8},        NamedNumber{"ENABLE_RINGS", 12},
    NamedNumber{"FILES2", 13},      NamedNumber{"FILES_UPDATE2", 14},
    NamedNumber{"BUFFERS2", 15},    NamedNumber{"BUFFERS_UPDATE", 16},
    NamedNumber{"PBUF_RING", 22},   NamedNumber{"UNREGISTER_PBUF_RING", 23},
    NamedNumber{"SYNC_CANCEL", 24}, NamedNumber{"FILE_ALLOC_RANGE", 25},
    NamedNumber{"PBUF_STATUS", 26},
};

// EVENTFD and its end, and the ring's beginning.
constexpr std::array<uint8_t, 3> kAlwaysAllowed = {4, 5, 12};

template <typename Table>
auto* Find(const Table& table, std::string_view name) {
  const auto row =
      std::find_if(table.begin(), table.end(),
                   [name](const auto& row) { return row.name == name; });
  return row == table.end() ? nullptr : &*row;
}

}  // namespace

absl::Span<const LoopOperation> LoopOperations() { return kOperations; }

const LoopOperation* FindLoopOperation(std::string_view name) {
  return Find(kOperations, name);
}

const NamedNumber* FindRequestFlag(std::string_view name) {
  return Find(kRequestFlags, name);
}

const NamedNumber* FindRegisterCall(std::string_view name) {
  return Find(kRegisterCalls, name);
}

absl::Span<const uint8_t> AlwaysAllowedRegisterCalls() {
  return kAlwaysAllowed;
}

}  // namespace bpfgrant::daemon

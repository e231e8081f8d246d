#include "client/bpfgrant/uring.h"

#include <poll.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstring>

namespace bpfgrant {
namespace {

// include/uapi/linux/io_uring.h of Linux 6.7.
constexpr uint8_t kUringCmd = 46;          // IORING_OP_URING_CMD
constexpr uint32_t kSocketSetsockopt = 3;  // SOCKET_URING_OP_SETSOCKOPT

// The fields of struct io_uring_sqe that socket commands use, as that header
// lays them out.
struct SocketCommand {
  uint8_t opcode;
  uint8_t flags;
  uint16_t priority;
  int32_t fd;
  uint32_t cmd_op;
  uint32_t padding;
  uint32_t level;
  uint32_t optname;
  uint32_t length;
  uint32_t rw_flags;
  uint64_t user_data;
  uint16_t buffer_index;
  uint16_t personality;
  uint32_t optlen;
  uint64_t optval;
  uint64_t padding2;
};
static_assert(sizeof(SocketCommand) == sizeof(io_uring_sqe));
static_assert(offsetof(SocketCommand, user_data) ==
              offsetof(io_uring_sqe, user_data));

}  // namespace

void PrepareAttach(io_uring_sqe* sqe, int socket, const int* program,
                   SocketHook hook) {
  SocketCommand command{};
  command.opcode = kUringCmd;
  command.fd = socket;
  command.cmd_op = kSocketSetsockopt;
  command.level = SOL_SOCKET;
  command.optname =
      hook == SocketHook::kFilter ? SO_ATTACH_BPF : SO_ATTACH_REUSEPORT_EBPF;
  command.optlen = sizeof(*program);
  command.optval = reinterpret_cast<uintptr_t>(program);
  std::memcpy(sqe, &command, sizeof(command));
}

void PreparePoll(io_uring_sqe* sqe, const RingBuffer& ring_buffer) {
  io_uring_prep_poll_multishot(sqe, ring_buffer.fd(), POLLIN);
}

}  // namespace bpfgrant

// What a loop's ring may do: names that a manifest can list, and the kernel's
// numbers for them.
//
// Requests that a loop submits run as if a BPF program had made them: what asks
// has_current_bpf_ctx() in the kernel, as setsockopt does, then skips checks of
// capabilities and the socket's lock (net/core/sock.c). The process can rewrite
// each request. So an operation is allowable only if none of its paths asks.

#ifndef DAEMON_LOADER_LOOP_OPERATIONS_H_
#define DAEMON_LOADER_LOOP_OPERATIONS_H_

#include <cstdint>
#include <string_view>

#include "absl/types/span.h"

namespace bpfgrant::daemon {

struct LoopOperation {
  std::string_view name;  // without IORING_OP_
  uint8_t number;         // enum io_uring_op
  bool allowed;
  // What the operation does in the kernel that shows it, or why not.
  std::string_view grounds;
};

// One row for each operation that the kernel had when the table was made; what
// is not here is not allowed.
absl::Span<const LoopOperation> LoopOperations();
// nullptr: there is no such row.
const LoopOperation* FindLoopOperation(std::string_view name);

struct NamedNumber {
  std::string_view name;
  uint8_t number;
};
// Bits of IOSQE_*, by name; nullptr: none.
const NamedNumber* FindRequestFlag(std::string_view name);
// IORING_REGISTER_* that a manifest can list, by name; nullptr: none. Those
// that would undo the restrictions, or make the ring another one, are not here.
const NamedNumber* FindRegisterCall(std::string_view name);
// Those that every ring with a loop may make.
absl::Span<const uint8_t> AlwaysAllowedRegisterCalls();

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LOOP_OPERATIONS_H_

// io_uring as Linux 7.1 has it, as far as both sides of a loop need it: flags
// and numbers that older headers and liburing do not name.

#ifndef PROTO_WIRE_RING_H_
#define PROTO_WIRE_RING_H_

#include <cstdint>

namespace bpfgrant {

// io_uring_setup(2), linux/io_uring.h.
inline constexpr uint32_t kSetupSqPoll = 1U << 1;
inline constexpr uint32_t kSetupCqSize = 1U << 3;
inline constexpr uint32_t kSetupDisabled = 1U << 6;  // R_DISABLED
inline constexpr uint32_t kSetupSubmitAll = 1U << 7;
inline constexpr uint32_t kSetupSingleIssuer = 1U << 12;
inline constexpr uint32_t kSetupDeferTaskrun = 1U << 13;
inline constexpr uint32_t kSetupNoSqArray = 1U << 16;
inline constexpr uint32_t kSetupSqRewind = 1U << 20;

// The ring of a loop. DEFER_TASKRUN is what the kernel's loops need, NO_SQARRAY
// and SQ_REWIND is where the loop's requests stand, R_DISABLED lets the daemon
// restrict the ring first, SUBMIT_ALL goes on behind a request that fails.
inline constexpr uint32_t kLoopSetupFlags =
    kSetupCqSize | kSetupDisabled | kSetupSubmitAll | kSetupSingleIssuer |
    kSetupDeferTaskrun | kSetupNoSqArray | kSetupSqRewind;

// io_uring_register(2).
inline constexpr uint32_t kRegisterEventfd = 4;
inline constexpr uint32_t kRegisterRestrictions = 11;
inline constexpr uint32_t kRegisterEnableRings = 12;
inline constexpr uint32_t kRegisterMemoryRegion = 34;  // MEM_REGION

}  // namespace bpfgrant

#endif  // PROTO_WIRE_RING_H_

// Every limit of the two sockets, once. Both sides compile against these; the
// ones an administrator can change are in config.proto, with their defaults
// here.

#ifndef PROTO_WIRE_LIMITS_H_
#define PROTO_WIRE_LIMITS_H_

#include <chrono>
#include <cstddef>
#include <cstdint>

#include "bpf-programs/include/bpfgrant/gate.h"

namespace bpfgrant {

// One packet of broker.sock, either way. Bytes.
inline constexpr size_t kMaxFrameBytes = 64 * 1024;
// Replies that list things stop here and say how to go on. Bytes.
inline constexpr size_t kListReplyBytes = 32 * 1024;
// Parameters of a program that are fds, and fds beside a client's packet: the
// socket to attach to comes with them.
inline constexpr size_t kMaxFileParameters = 4;
inline constexpr size_t kMaxFdsFromClient = 1 + kMaxFileParameters;
// fds beside a packet of the daemon's: the program and its handles. The
// kernel's own limit is 253 (SCM_MAX_FD, include/net/scm.h).
inline constexpr size_t kMaxFdsPerGrant = 16;

inline constexpr size_t kSessionTokenBytes = 32;
inline constexpr size_t kNonceBytes = 32;

// Names a client may send: programs, interfaces, handles. Bytes.
inline constexpr size_t kMaxNameBytes = 63;
// Field of a client's that ends up in a log. Bytes.
inline constexpr size_t kMaxClientNameBytes = 64;

// Packets waiting for a session to read them. One more ends the session.
inline constexpr size_t kMaxQueuedFrames = 64;
// Requests of one session that wait for the loader.
inline constexpr size_t kMaxPendingPerSession = 4;
// Grants of one session acquired over gRPC and not claimed yet: the daemon
// holds their fds.
inline constexpr size_t kMaxUnclaimedPerSession = 4;
// Requests of one user's sessions that wait for the loader.
inline constexpr size_t kMaxPendingPerUser = 64;
// Requests of all sessions that wait for the loader.
inline constexpr size_t kMaxPending = 1024;
// Instances that the loader is asked about at once.
inline constexpr size_t kMaxLookedAt = 1024;
// Events a gRPC watcher may lag behind; one more ends its stream.
inline constexpr size_t kMaxQueuedEvents = 128;
// Who watches, of one user: each event is copied to each.
inline constexpr size_t kMaxWatchersPerUser = 64;

// Loads of one user's for values of parameters that no ready instance has: so
// many at once after a rest, and in a minute.
inline constexpr uint32_t kValueLoadsAtOnce = 16;
inline constexpr uint32_t kValueLoadsPerMinute = 60;
// Values for which an instance is kept ready, of one user and in all. The one
// that was not asked for for longest makes room.
inline constexpr size_t kKeptValuesPerUser = 4;
inline constexpr size_t kKeptValues = 256;

// fds in flight to the sockets of one user: sent, not yet read. The kernel
// counts them against RLIMIT_NOFILE of the daemon's user, for all clients
// together (too_many_unix_fds, net/core/scm.c), so no user may take them all.
inline constexpr size_t kMaxUnreadFdsPerUser = 2048;

// Open files without which the daemon does not begin: LimitNOFILE= of its unit.
inline constexpr size_t kMinOpenFiles = 8192;
// What a refusal says, at most. Bytes.
inline constexpr size_t kMaxMessageBytes = 2048;

// gRPC. Streams of events first, of one session.
inline constexpr size_t kMaxStreamsPerSession = 4;
inline constexpr size_t kMaxControlConnections = 256;
inline constexpr size_t kMaxControlConnectionsPerUser = 32;
inline constexpr int kMaxControlMessageBytes = 64 * 1024;
inline constexpr int kMaxControlStreams = 32;  // of one connection

// Defaults of config.proto's Limits.
inline constexpr uint32_t kDefaultSessions = 8192;
inline constexpr uint32_t kDefaultSessionsPerUser = 4096;
inline constexpr uint32_t kDefaultHandshakeMs = 5000;
inline constexpr uint32_t kDefaultPoolBytes = 64 * 1024 * 1024;
inline constexpr uint32_t kDefaultGrantsPerSession = 256;

// How long the broker waits.
inline constexpr std::chrono::milliseconds kLoadDeadline{10'000};
inline constexpr std::chrono::milliseconds kAttachDeadline{2'000};
// Of a reload that asks what all who hold grants execute, of so many users at
// once.
inline constexpr std::chrono::milliseconds kLearnDeadline{30'000};
inline constexpr size_t kLearnUsers = 16;
// Making or removing the link between a loop and a ring, alone: meanwhile no
// other loop on the machine can be attached or detached. The client that holds
// it up for so long is killed; if that was not enough, each process of its user
// that has a ring, and in the end each process of its user.
inline constexpr std::chrono::milliseconds kLinkDeadline{500};
inline constexpr std::chrono::milliseconds kLinkKillAfter{250};
inline constexpr std::chrono::milliseconds kRevokeDeadline{2'000};
// Of a Rotate that names none, and the longest.
inline constexpr std::chrono::milliseconds kRotateDeadline{2'000};
inline constexpr std::chrono::milliseconds kMaxRotateDeadline{60'000};
inline constexpr std::chrono::milliseconds kReloadDeadline{120'000};
// For the kernel to let go of what a client gave back: the most that Release
// waits for, and what an Acquire waits for that finds its quota used up by it.
inline constexpr std::chrono::milliseconds kMaxReleaseWait{600'000};
inline constexpr std::chrono::milliseconds kRoomDeadline{1'000};
// From Acquire over gRPC to Claim.
inline constexpr std::chrono::milliseconds kClaimDeadline{30'000};

// D-Bus. Calls under way, of all and of one user: each may wait for polkit, and
// that for a person.
inline constexpr size_t kMaxBusCalls = 64;
inline constexpr size_t kMaxBusCallsPerUser = 8;
// For polkit's answer: of a call that may ask a person, and of any other.
inline constexpr std::chrono::milliseconds kAskDeadline{120'000};
inline constexpr std::chrono::milliseconds kPolkitDeadline{5'000};

// What outlives the daemon. fds that the service manager keeps:
// FileDescriptorStoreMax= of its unit.
inline constexpr size_t kMaxStoredFds = 32768;
// Grants that the loader is told of at once, after that.
inline constexpr int kMaxResumedAtOnce = 128;
// Requests of a session that are sent again after that.
inline constexpr size_t kMaxResent = 1024;

// The audit trail. Records that wait for the journal.
inline constexpr size_t kMaxQueuedRecords = 16384;
// One user's, at once and each second after that: of grants (two each), and of
// requests that were refused. What goes beyond is told as a number.
inline constexpr double kAuditGrantBurst = 4096;
inline constexpr double kAuditGrantsPerSecond = 100;
inline constexpr double kAuditDenialBurst = 256;
inline constexpr double kAuditDenialsPerSecond = 4;
inline constexpr std::chrono::seconds kAuditFlushInterval{10};

// The administrator's files. Bytes.
inline constexpr size_t kMaxTextFileBytes = 1024 * 1024;
inline constexpr size_t kMaxObjectBytes = 16 * 1024 * 1024;
inline constexpr size_t kMaxFilesPerDirectory = 4096;
// Of a manifest: variants, and what each of them may need.
inline constexpr int kMaxVariants = 8;
inline constexpr int kMaxNeeds = 16;
// Parameters of one program; choices of an enumeration; bytes of a value.
inline constexpr int kMaxParameters = 16;
inline constexpr int kMaxChoices = 32;
inline constexpr uint32_t kMaxValueBytes = 256;
// Tracepoints of one program.
inline constexpr int kMaxHooks = 8;
inline constexpr uint32_t kDefaultPoolReady = 4;
inline constexpr uint32_t kMaxPoolReady = 1024;
// Loops. Entries of a ring; steps in a row.
inline constexpr uint32_t kMaxSqEntries = 4096;
inline constexpr uint32_t kMaxCqEntries = 65536;
inline constexpr uint32_t kMaxLoopMemoryBytes = 1U << 30;
inline constexpr uint32_t kDefaultStepBudget = 65536;
inline constexpr uint32_t kMaxStepBudget = 1U << 24;
// What is kept of a verifier's log: its end. Bytes.
inline constexpr size_t kMaxVerifierLogBytes = 16 * 1024;
// A generated header. Bytes.
inline constexpr size_t kMaxHeaderBytes = 16 * 1024;

// Slots of the gate map (struct bpfgrant_gate_entry).
inline constexpr uint32_t kGateSlots = BPFGRANT_GATE_SLOTS;

}  // namespace bpfgrant

#endif  // PROTO_WIRE_LIMITS_H_

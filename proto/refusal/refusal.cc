#include "proto/refusal/refusal.h"

#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "proto/wire/limits.h"

namespace bpfgrant {
namespace {

constexpr char kPayloadUrl[] = "type.bpfgrant/Refusal";
constexpr std::string_view kReasonPrefix = "REASON_";

struct Row {
  v1::Reason reason;
  absl::StatusCode code;
  std::string_view next_step;
};

using Code = absl::StatusCode;

// Every reason, in the order of reason.proto. gRPC has the same codes.
constexpr Row kTable[] = {
    {v1::REASON_UNSPECIFIED, Code::kUnknown, ""},

    // The connection and who is behind it.
    {v1::REASON_PEER_UNNAMED, Code::kUnauthenticated,
     "Connect anew, from a process that outlives the handshake."},
    {v1::REASON_PEER_CHANGED, Code::kUnauthenticated,
     "Open a session of its own in each process and for each user."},
    {v1::REASON_NO_SESSION, Code::kUnauthenticated,
     "Open a session on broker.sock and send the token it answers with."},
    {v1::REASON_PROTOCOL_VERSION, Code::kFailedPrecondition,
     "Use a client library of this daemon's release."},
    {v1::REASON_MALFORMED, Code::kInvalidArgument,
     "Correct the client: proto/bpfgrant/v1/broker.proto says what it may "
     "send."},
    {v1::REASON_OUT_OF_ORDER, Code::kFailedPrecondition,
     "Correct the client: Hello comes first and once, and request numbers "
     "grow."},
    {v1::REASON_TIMED_OUT, Code::kDeadlineExceeded, "Connect and try again."},
    {v1::REASON_TOO_MANY_SESSIONS, Code::kResourceExhausted,
     "Close a session, or have the administrator raise limits.sessions or "
     "limits.sessions_per_user."},
    {v1::REASON_NEEDS_BROKER_SOCKET, Code::kFailedPrecondition,
     "Make this call on broker.sock."},
    {v1::REASON_SLOW_READER, Code::kResourceExhausted,
     "Connect again and read what arrives before asking for more."},
    {v1::REASON_INVALID_ARGUMENT, Code::kInvalidArgument,
     "Correct the request."},

    // The decision.
    {v1::REASON_DENIED_BY_RULE, Code::kPermissionDenied,
     "Ask the administrator about that rule."},
    {v1::REASON_DENIED_BY_DEFAULT, Code::kPermissionDenied,
     "Ask the administrator for a rule that allows it."},
    {v1::REASON_QUOTA, Code::kResourceExhausted,
     "Release a grant, or ask the administrator for a larger quota."},
    {v1::REASON_NOT_ADMINISTRATOR, Code::kPermissionDenied,
     "Make this call as root or as a member of the administrators' group."},
    {v1::REASON_NOT_YOURS, Code::kPermissionDenied,
     "Make this call in the session that holds the grant."},

    // The catalog.
    {v1::REASON_UNKNOWN_PROGRAM, Code::kNotFound,
     "`bpfgrantctl list` shows the programs there are."},
    {v1::REASON_PROGRAM_UNAVAILABLE, Code::kUnavailable,
     "`bpfgrantctl describe` says why the program was not admitted."},
    {v1::REASON_INTERFACE_MISMATCH, Code::kFailedPrecondition,
     "Build the client against the header that `bpfgrantctl describe` "
     "prints."},
    {v1::REASON_UNKNOWN_HANDLE, Code::kNotFound,
     "`bpfgrantctl describe` shows the handles there are."},

    // Handing over.
    {v1::REASON_DELIVERY_NOT_ALLOWED, Code::kFailedPrecondition,
     "Ask for a delivery that `bpfgrantctl describe` shows."},
    {v1::REASON_DELIVERY_DANGEROUS, Code::kFailedPrecondition,
     "Ask for an attachment and send the socket or device along, or have the "
     "administrator say `trusted: true` in the rule."},
    {v1::REASON_SOCKET_NEEDED, Code::kInvalidArgument,
     "Send the socket, or the device's fd, to attach to beside the request."},
    {v1::REASON_SOCKET_UNSUITABLE, Code::kInvalidArgument,
     "Send a socket of the kind that the program is for."},
    {v1::REASON_ATTACH_FAILED, Code::kFailedPrecondition,
     "See that the socket is of the kind that the program is for and has no "
     "locked filter."},
    {v1::REASON_UNEXPECTED_FDS, Code::kInvalidArgument,
     "Send the request without fds."},
    {v1::REASON_UNKNOWN_GRANT, Code::kNotFound,
     "`bpfgrantctl grants` shows the grants there are."},
    {v1::REASON_ALREADY_CLAIMED, Code::kFailedPrecondition,
     "Acquire another grant: the fds of one are handed over once."},
    {v1::REASON_BUSY, Code::kUnavailable, "Try again a little later."},
    {v1::REASON_TOO_MANY_UNREAD_FDS, Code::kResourceExhausted,
     "Read the replies that are waiting, then try again."},
    {v1::REASON_LOAD_FAILED, Code::kInternal,
     "The journal of bpfgrantd says what the kernel objected to."},

    // Attaching a loop to the client's ring.
    {v1::REASON_RING_NEEDED, Code::kInvalidArgument,
     "Make a ring with IORING_SETUP_R_DISABLED and send its number."},
    {v1::REASON_RING_NOT_YOURS, Code::kInvalidArgument,
     "Send the number that the ring's fd has in the process that connected, "
     "and keep it open until the answer."},
    {v1::REASON_NOT_A_RING, Code::kInvalidArgument,
     "Send the number of an fd that io_uring_setup(2) returned."},
    {v1::REASON_RING_NOT_DISABLED, Code::kFailedPrecondition,
     "Make the ring with IORING_SETUP_R_DISABLED, and enable it when the loop "
     "is attached."},
    {v1::REASON_RING_RESTRICTED, Code::kFailedPrecondition,
     "Make a new ring for each loop and register no restrictions with it."},
    {v1::REASON_RING_FLAGS, Code::kFailedPrecondition,
     "Make the ring with the setup_flags that Describe says."},
    {v1::REASON_RING_GEOMETRY, Code::kFailedPrecondition,
     "Make the ring with the sq_entries and cq_entries that Describe says."},
    {v1::REASON_RING_BLOCKED, Code::kDeadlineExceeded,
     "Make no other use of the ring until the answer is there."},
    {v1::REASON_STILL_HELD, Code::kDeadlineExceeded,
     "Close every copy of its fds, in every process, and what was made of "
     "them: "
     "mappings, attachments, pins."},

    // The end of a grant.
    {v1::REASON_RELEASED, Code::kCancelled, "Acquire again if needed."},
    {v1::REASON_SESSION_ENDED, Code::kCancelled,
     "Connect and acquire again if needed."},
    {v1::REASON_REVOKED, Code::kAborted, "Ask the administrator why."},
    {v1::REASON_WITHDRAWN, Code::kAborted,
     "`bpfgrantctl list` shows the programs there are."},
    {v1::REASON_POLICY_CHANGED, Code::kAborted,
     "`bpfgrantctl explain` says what the policy allows now."},
    {v1::REASON_DAEMON_STOPPED, Code::kUnavailable,
     "Connect and acquire again once bpfgrantd runs."},

    // Tracing programs.
    {v1::REASON_PROCESS_ENROLLED, Code::kAlreadyExists,
     "Use the grant that the process holds, or release that one first."},
    {v1::REASON_NOT_KEPT, Code::kUnavailable,
     "Acquire it again; the daemon's journal says why it was not kept."},

    // The administrator's files.
    {v1::REASON_RELOAD_REJECTED, Code::kFailedPrecondition,
     "Correct the file and reload; until then the last good state is in "
     "force."},
    {v1::REASON_FILE_UNSAFE, Code::kFailedPrecondition,
     "Make it a regular file of root's that nobody else can write, and "
     "reload."},
    {v1::REASON_FILE_INVALID, Code::kInvalidArgument,
     "Correct the file there and reload."},
    {v1::REASON_DIGEST_MISMATCH, Code::kFailedPrecondition,
     "Install the object that was approved, or approve this one by its digest "
     "in the manifest, and reload."},
    {v1::REASON_OBJECT_MISMATCH, Code::kFailedPrecondition,
     "Make manifest and object name the same things, and reload."},
    {v1::REASON_VERIFIER, Code::kFailedPrecondition,
     "`bpfgrantctl describe` shows the end of the verifier's log."},
    {v1::REASON_KERNEL_TOO_OLD, Code::kUnimplemented,
     "Run a kernel that has it, or install a program that does without."},
    {v1::REASON_GATE_MISSING, Code::kFailedPrecondition,
     "Build the program against gate.bpf.h, so that it can be revoked."},
    {v1::REASON_TOO_LARGE, Code::kResourceExhausted,
     "Make it smaller: proto/wire/limits.h has the limits."},

    {v1::REASON_SIGNATURE, Code::kPermissionDenied,
     "Have it signed (`bpfgrantctl sign`) with a key that counts, and reload."},

    // Maps that are turned over.
    {v1::REASON_STILL_READ, Code::kDeadlineExceeded,
     "Leave the old maps alone and call Rotate again, without names, to wait "
     "on."},

    // Handing over, once more.
    {v1::REASON_TUN_UNSUITABLE, Code::kInvalidArgument,
     "Send an fd of /dev/net/tun on which TUNSETIFF has put a device."},

    // Parameters.
    {v1::REASON_PARAMETER_UNKNOWN, Code::kInvalidArgument,
     "`bpfgrantctl describe` lists the program's parameters."},
    {v1::REASON_PARAMETER_MISSING, Code::kInvalidArgument,
     "Give it a value: `bpfgrantctl describe` tells which it may have."},
    {v1::REASON_PARAMETER_RANGE, Code::kOutOfRange,
     "`bpfgrantctl describe` tells which values it may have."},
    {v1::REASON_PARAMETER_NARROWED, Code::kPermissionDenied,
     "Choose within what the rule allows, or ask the administrator."},

    // Admission.
    {v1::REASON_ADMISSION_LIMIT, Code::kPermissionDenied,
     "An administrator who wants it all the same raises that limit."},

    // The decision, once more.
    {v1::REASON_RATE, Code::kResourceExhausted, "Ask again later."},

    {v1::REASON_INTERNAL, Code::kInternal,
     "The journal of bpfgrantd has more; please report it."},
};

// Ascending, so that no reason has two rows. That each has one, tests show.
constexpr bool Ascending() {
  for (size_t i = 1; i < std::size(kTable); ++i) {
    if (kTable[i - 1].reason >= kTable[i].reason) return false;
  }
  return true;
}
static_assert(Ascending());

// A peer of another release may send reasons that this one has no row for.
const Row& RowOf(v1::Reason reason) {
  for (const Row& row : kTable) {
    if (row.reason == reason) return row;
  }
  return kTable[0];
}

// "<what happened>. <next step>". A message that was composed before comes back
// as it is: what one layer refused, the next may refuse in the same words.
std::string Compose(std::string_view message, std::string_view next_step) {
  if (message.empty()) return std::string(next_step);
  std::string composed(message);
  if (composed.size() > kMaxMessageBytes) {
    // At the start of a character, so that what is left is UTF-8.
    size_t end = kMaxMessageBytes;
    while (end > 0 && (composed[end] & 0xc0) == 0x80) --end;
    composed.resize(end);
    composed += "...";
  }
  if (next_step.empty() || message.ends_with(next_step)) return composed;
  const bool ended = message.ends_with('.') || message.ends_with('?') ||
                     message.ends_with('!');
  composed.append(ended ? " " : ". ").append(next_step);
  return composed;
}

}  // namespace

absl::Status Refuse(v1::Reason reason, std::string_view message) {
  if (reason == v1::REASON_UNSPECIFIED) reason = v1::REASON_INTERNAL;
  v1::Refusal refusal;
  refusal.set_reason(reason);
  refusal.set_message(Compose(message, NextStep(reason)));
  return StatusOf(refusal);
}

absl::Status RefuseByVerdict(const v1::Verdict& verdict,
                             std::string_view message) {
  // A refusal must not carry a verdict that says yes.
  if (verdict.allowed()) return Refuse(v1::REASON_INTERNAL, message);
  const v1::Reason reason = verdict.reason() == v1::REASON_UNSPECIFIED
                                ? v1::REASON_DENIED_BY_DEFAULT
                                : verdict.reason();
  v1::Refusal refusal;
  refusal.set_reason(reason);
  refusal.set_message(Compose(message, NextStep(reason)));
  *refusal.mutable_verdict() = verdict;
  return StatusOf(refusal);
}

v1::Refusal RefusalOf(const absl::Status& status) {
  v1::Refusal refusal;
  const auto payload = status.GetPayload(kPayloadUrl);
  if (payload.has_value() && refusal.ParseFromString(std::string(*payload))) {
    return refusal;
  }
  refusal.Clear();
  refusal.set_reason(v1::REASON_INTERNAL);
  refusal.set_message(std::string(status.message()));
  return refusal;
}

absl::Status StatusOf(const v1::Refusal& refusal) {
  absl::Status status(RowOf(refusal.reason()).code, refusal.message());
  status.SetPayload(kPayloadUrl, absl::Cord(refusal.SerializeAsString()));
  return status;
}

v1::Reason ReasonOf(const absl::Status& status) {
  if (status.ok()) return v1::REASON_UNSPECIFIED;
  return RefusalOf(status).reason();
}

std::string ReasonName(v1::Reason reason) {
  const std::string& name = v1::Reason_Name(reason);
  if (name.empty()) return absl::StrCat("reason-", static_cast<int>(reason));
  return absl::StrReplaceAll(
      absl::AsciiStrToLower(name.substr(kReasonPrefix.size())), {{"_", "-"}});
}

std::string_view NextStep(v1::Reason reason) { return RowOf(reason).next_step; }

}  // namespace bpfgrant

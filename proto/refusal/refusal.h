// Reasons as statuses: how a refusal travels inside a process. There is one
// table of reasons (reason.proto) and one of what to do about each (here).

#ifndef PROTO_REFUSAL_REFUSAL_H_
#define PROTO_REFUSAL_REFUSAL_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant {

// A status that carries `reason`. The message says what happened and to what;
// what to do next is added from the table. `reason` must not be unspecified.
absl::Status Refuse(v1::Reason reason, std::string_view message);

// The same for a verdict of the policy that is not "allowed".
absl::Status RefuseByVerdict(const v1::Verdict& verdict,
                             std::string_view message);

// The refusal that `status` carries; REASON_INTERNAL with the status's message
// if it carries none. `status` must not be OK.
v1::Refusal RefusalOf(const absl::Status& status);

// The way back: a status that carries `refusal`.
absl::Status StatusOf(const v1::Refusal& refusal);

// The reason alone; unspecified for OK.
v1::Reason ReasonOf(const absl::Status& status);

// Without the enum's prefix, in lower case with dashes: "denied-by-rule".
std::string ReasonName(v1::Reason reason);

// What somebody who met this reason does next; a sentence, or "".
std::string_view NextStep(v1::Reason reason);

}  // namespace bpfgrant

#endif  // PROTO_REFUSAL_REFUSAL_H_

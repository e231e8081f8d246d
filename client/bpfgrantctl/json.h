// --json: replies as protobuf's JSON, with the field names of messages.proto
// and with fields that have their default value. 64-bit numbers are strings
// there.

#ifndef CLIENT_BPFGRANTCTL_JSON_H_
#define CLIENT_BPFGRANTCTL_JSON_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/messages.pb.h"
#include "google/protobuf/message.h"
#include "google/protobuf/struct.pb.h"

namespace bpfgrant::ctl {

enum class Layout {
  kLines,    // for people as well
  kOneLine,  // one object a line
};

// Writes `message` to stdout. kInternal: it has no JSON form.
absl::Status PrintJson(const google::protobuf::Message& message,
                       Layout layout = Layout::kLines);

// {"refusal": {...}}
void PrintRefusal(const v1::Refusal& refusal);

// For answers that are made of several: the same JSON as a value.
absl::StatusOr<google::protobuf::Value> ToValue(
    const google::protobuf::Message& message);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_JSON_H_

#include "client/bpfgrantctl/json.h"

#include <cstdio>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/util/json_util.h"

namespace bpfgrant::ctl {
namespace {

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message,
                                   Layout layout) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = layout == Layout::kLines;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) {
    return absl::InternalError(
        absl::StrCat("no JSON of this reply: ", std::string(status.message())));
  }
  return text;
}

}  // namespace

absl::Status PrintJson(const google::protobuf::Message& message,
                       Layout layout) {
  const absl::StatusOr<std::string> text = ToJson(message, layout);
  if (!text.ok()) return text.status();
  std::printf("%s\n", std::string(absl::StripAsciiWhitespace(*text)).c_str());
  return absl::OkStatus();
}

void PrintRefusal(const v1::Refusal& refusal) {
  google::protobuf::Struct object;
  const absl::StatusOr<google::protobuf::Value> value = ToValue(refusal);
  if (!value.ok()) return;
  (*object.mutable_fields())["refusal"] = *value;
  PrintJson(object).IgnoreError();
}

absl::StatusOr<google::protobuf::Value> ToValue(
    const google::protobuf::Message& message) {
  const absl::StatusOr<std::string> text = ToJson(message, Layout::kOneLine);
  if (!text.ok()) return text.status();
  google::protobuf::Value value;
  const auto status =
      google::protobuf::util::JsonStringToMessage(*text, &value);
  if (!status.ok()) {
    return absl::InternalError(std::string(status.message()));
  }
  return value;
}

}  // namespace bpfgrant::ctl

#include "client/bpfgrantctl/parameter_text.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrant/parameter.h"
#include "client/bpfgrantctl/command.h"
#include "policy/parameter.h"

namespace bpfgrant::ctl {
namespace {

absl::StatusOr<v1::ParameterValue> ParsePrefix(const std::string& name,
                                               const std::string& text) {
  const size_t slash = text.find('/');
  char address[16];
  uint32_t length = 0;
  const std::string host = text.substr(0, slash);
  const bool ipv4 = inet_pton(AF_INET, host.c_str(), address) == 1;
  if (slash == std::string::npos ||
      !absl::SimpleAtoi(text.substr(slash + 1), &length) ||
      (!ipv4 && inet_pton(AF_INET6, host.c_str(), address) != 1)) {
    return UsageError(absl::StrCat("'", text, "' is not ADDRESS/LENGTH"));
  }
  return PrefixParameter(name, std::string(address, ipv4 ? 4 : 16), length);
}

}  // namespace

absl::StatusOr<v1::ParameterValue> ParseParameter(
    const v1::Parameter& parameter, const std::string& text) {
  int64_t number = 0;
  switch (parameter.type_case()) {
    case v1::Parameter::kInteger:
      if (absl::SimpleAtoi(text, &number)) {
        return IntegerParameter(parameter.name(), number);
      }
      break;
    case v1::Parameter::kEnumeration:
      return ChoiceParameter(parameter.name(), text);
    case v1::Parameter::kBytes:
      if (text.size() % 2 == 0 &&
          std::all_of(text.begin(), text.end(),
                      [](unsigned char c) { return std::isxdigit(c) != 0; })) {
        return BytesParameter(parameter.name(), absl::HexStringToBytes(text));
      }
      break;
    case v1::Parameter::kPrefix:
      return ParsePrefix(parameter.name(), text);
    default:
      break;
  }
  return UsageError(absl::StrCat("'", text, "' is no value for '",
                                 parameter.name(), "', which is ",
                                 policy::RangeOf(parameter)));
}

}  // namespace bpfgrant::ctl

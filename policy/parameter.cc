#include "policy/parameter.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::policy {
namespace {

constexpr uint32_t kBitsPerByte = 8;

std::string ChoicesOf(const v1::Parameter::Enumeration& enumeration) {
  return absl::StrJoin(
      enumeration.choice(), ", ",
      [](std::string* out, const auto& choice) { out->append(choice.name()); });
}

const v1::Parameter::Enumeration::Choice* FindChoice(
    const v1::Parameter& parameter, const std::string& name) {
  const auto& choices = parameter.enumeration().choice();
  const auto found =
      std::find_if(choices.begin(), choices.end(),
                   [&](const auto& choice) { return choice.name() == name; });
  return found == choices.end() ? nullptr : &*found;
}

bool HasBitsBeyond(const v1::AddressPrefix& prefix) {
  const std::string& address = prefix.address();
  for (uint32_t bit = prefix.length(); bit < address.size() * kBitsPerByte;
       ++bit) {
    const auto byte = static_cast<unsigned char>(address[bit / kBitsPerByte]);
    if ((byte >> (kBitsPerByte - 1 - bit % kBitsPerByte) & 1) != 0) return true;
  }
  return false;
}

bool IsPrefix(const v1::Parameter::Prefix& allowed,
              const v1::AddressPrefix& prefix) {
  const size_t size = prefix.address().size();
  const bool family =
      (size == 4 && allowed.ipv4()) || (size == 16 && allowed.ipv6());
  return family && prefix.length() <= size * kBitsPerByte &&
         prefix.length() >= allowed.min_length() && !HasBitsBeyond(prefix);
}

bool IsInRange(const v1::Parameter& parameter,
               const v1::ParameterValue& value) {
  switch (parameter.type_case()) {
    case v1::Parameter::kInteger:
      return value.has_integer() &&
             value.integer() >= parameter.integer().min() &&
             value.integer() <= parameter.integer().max();
    case v1::Parameter::kEnumeration:
      return value.has_choice() &&
             FindChoice(parameter, value.choice()) != nullptr;
    case v1::Parameter::kBytes:
      return value.has_bytes() &&
             value.bytes().size() >= parameter.bytes().min_length() &&
             value.bytes().size() <= parameter.bytes().max_length();
    case v1::Parameter::kPrefix:
      return value.has_prefix() && IsPrefix(parameter.prefix(), value.prefix());
    case v1::Parameter::kFile:
      return value.has_fd();
    case v1::Parameter::TYPE_NOT_SET:
      break;
  }
  return false;
}

}  // namespace

std::string DescribeValue(const v1::ParameterValue& value) {
  switch (value.value_case()) {
    case v1::ParameterValue::kInteger:
      return absl::StrCat(value.integer());
    case v1::ParameterValue::kChoice:
      return value.choice();
    case v1::ParameterValue::kBytes:
      return absl::BytesToHexString(value.bytes());
    case v1::ParameterValue::kPrefix:
      return absl::StrCat(absl::BytesToHexString(value.prefix().address()), "/",
                          value.prefix().length());
    case v1::ParameterValue::kFd:
      return "fd";
    case v1::ParameterValue::VALUE_NOT_SET:
      break;
  }
  return "";
}

std::string RangeOf(const v1::Parameter& parameter) {
  switch (parameter.type_case()) {
    case v1::Parameter::kInteger:
      return absl::StrCat(parameter.integer().min(), " to ",
                          parameter.integer().max(),
                          parameter.integer().unit().empty() ? "" : " ",
                          parameter.integer().unit());
    case v1::Parameter::kEnumeration:
      return absl::StrCat("one of ", ChoicesOf(parameter.enumeration()));
    case v1::Parameter::kBytes:
      return absl::StrCat(parameter.bytes().min_length(), " to ",
                          parameter.bytes().max_length(), " bytes of any kind");
    case v1::Parameter::kPrefix:
      return absl::StrCat("a prefix of ",
                          !parameter.prefix().ipv6()   ? "IPv4"
                          : !parameter.prefix().ipv4() ? "IPv6"
                                                       : "IPv4 or IPv6",
                          ", of at least ", parameter.prefix().min_length(),
                          " bits and with no bit beyond them");
    case v1::Parameter::kFile:
      return absl::StrCat(
          "an fd: ", v1::Parameter::FileKind_Name(parameter.file().kind()));
    case v1::Parameter::TYPE_NOT_SET:
      break;
  }
  return "nothing";
}

absl::Status CheckValue(const v1::Parameter& parameter,
                        const v1::ParameterValue& value) {
  if (IsInRange(parameter, value)) return absl::OkStatus();
  return Refuse(v1::REASON_PARAMETER_RANGE,
                absl::StrCat("parameter '", parameter.name(), "' is ",
                             RangeOf(parameter)));
}

absl::StatusOr<std::vector<v1::ParameterValue>> Settle(
    const Parameters& declared, const ParameterValues& given, bool ranges) {
  std::set<std::string> names;
  for (const v1::ParameterValue& value : given) {
    if (FindParameter(declared, value.name()) == nullptr) {
      return Refuse(v1::REASON_PARAMETER_UNKNOWN,
                    absl::StrCat("there is no parameter '", value.name(), "'"));
    }
    if (!names.insert(value.name()).second) {
      return Refuse(
          v1::REASON_INVALID_ARGUMENT,
          absl::StrCat("parameter '", value.name(), "' is given twice"));
    }
  }
  std::vector<v1::ParameterValue> settled;
  for (const v1::Parameter& parameter : declared) {
    const auto value = std::find_if(
        given.begin(), given.end(),
        [&](const auto& one) { return one.name() == parameter.name(); });
    if (value != given.end()) {
      absl::Status status =
          ranges ? CheckValue(parameter, *value) : absl::OkStatus();
      if (!status.ok()) return status;
      settled.push_back(*value);
      // Whatever else a client has put in is no value, and may be large.
      settled.back().DiscardUnknownFields();
    } else if (parameter.has_default_()) {
      settled.push_back(parameter.default_());
      settled.back().set_name(parameter.name());
    } else if (!parameter.optional()) {
      return Refuse(v1::REASON_PARAMETER_MISSING,
                    absl::StrCat("parameter '", parameter.name(),
                                 "' must be given: ", RangeOf(parameter)));
    }
  }
  return settled;
}

const v1::Parameter* FindParameter(const Parameters& declared,
                                   const std::string& name) {
  const auto found = std::find_if(
      declared.begin(), declared.end(),
      [&](const v1::Parameter& parameter) { return parameter.name() == name; });
  return found == declared.end() ? nullptr : &*found;
}

int64_t NumberOf(const v1::Parameter& parameter,
                 const v1::ParameterValue& value) {
  if (value.has_integer()) return value.integer();
  const auto* choice = FindChoice(parameter, value.choice());
  return choice == nullptr ? 0 : choice->value();
}

std::vector<v1::ParameterValue> OtherThanDefaults(
    const Parameters& declared, const std::vector<v1::ParameterValue>& values,
    v1::Parameter::PlaceCase place) {
  std::vector<v1::ParameterValue> found;
  bool all_default = true;
  for (const v1::ParameterValue& value : values) {
    const v1::Parameter& parameter = *FindParameter(declared, value.name());
    if (parameter.place_case() != place) continue;
    v1::ParameterValue usual = parameter.default_();
    usual.set_name(value.name());
    all_default = all_default && parameter.has_default_() &&
                  usual.SerializeAsString() == value.SerializeAsString();
    found.push_back(value);
  }
  if (all_default) found.clear();
  return found;
}

}  // namespace bpfgrant::policy

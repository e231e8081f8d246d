#include "policy/narrowing.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::policy {
namespace {

constexpr uint32_t kBitsPerByte = 8;

// "10.0.0.0/8".
std::optional<v1::AddressPrefix> ParsePrefix(const std::string& text) {
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const std::string address = text.substr(0, slash);
  const bool ipv6 = address.find(':') != std::string::npos;
  const size_t size = ipv6 ? 16 : 4;
  std::array<char, 16> bytes{};
  uint32_t length = 0;
  if (inet_pton(ipv6 ? AF_INET6 : AF_INET, address.c_str(), bytes.data()) !=
          1 ||
      !absl::SimpleAtoi(text.substr(slash + 1), &length) ||
      length > size * kBitsPerByte) {
    return std::nullopt;
  }
  v1::AddressPrefix prefix;
  prefix.set_address(bytes.data(), size);
  prefix.set_length(length);
  return prefix;
}

bool IsWithin(const v1::AddressPrefix& inner, const v1::AddressPrefix& outer) {
  if (inner.address().size() != outer.address().size() ||
      inner.length() < outer.length()) {
    return false;
  }
  for (uint32_t bit = 0; bit < outer.length(); ++bit) {
    const uint32_t shift = kBitsPerByte - 1 - bit % kBitsPerByte;
    const auto differ =
        static_cast<unsigned char>(inner.address()[bit / kBitsPerByte] ^
                                   outer.address()[bit / kBitsPerByte]);
    if ((differ >> shift & 1) != 0) return false;
  }
  return true;
}

bool IsParameterName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         absl::ascii_islower(name.front()) &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
         });
}

// What is wrong with it by itself; "" if nothing is.
std::string WrongWith(const v1::Narrowing& narrowing) {
  if (!IsParameterName(narrowing.name())) {
    return absl::StrCat("names parameter '", narrowing.name(),
                        "', which no program can have");
  }
  if (narrowing.has_min() && narrowing.has_max() &&
      narrowing.min() > narrowing.max()) {
    return absl::StrCat("leaves nothing of parameter '", narrowing.name(), "'");
  }
  for (const std::string& prefix : narrowing.prefix()) {
    if (!ParsePrefix(prefix).has_value()) {
      return absl::StrCat("has '", prefix, "', which is no prefix");
    }
  }
  return "";
}

// Of the kinds of bounds that it names, those of the value's type must hold,
// and a value of another type is within none.
bool Allows(const v1::Narrowing& narrowing, const v1::ParameterValue& value) {
  const bool numbers = narrowing.has_min() || narrowing.has_max();
  const bool any = !numbers && narrowing.choice().empty() &&
                   narrowing.prefix().empty() && !narrowing.has_max_length();
  if (any) return true;
  switch (value.value_case()) {
    case v1::ParameterValue::kInteger:
      return numbers &&
             (!narrowing.has_min() || value.integer() >= narrowing.min()) &&
             (!narrowing.has_max() || value.integer() <= narrowing.max());
    case v1::ParameterValue::kChoice:
      return std::find(narrowing.choice().begin(), narrowing.choice().end(),
                       value.choice()) != narrowing.choice().end();
    case v1::ParameterValue::kBytes:
      return narrowing.has_max_length() &&
             value.bytes().size() <= narrowing.max_length();
    case v1::ParameterValue::kPrefix:
      return std::any_of(narrowing.prefix().begin(), narrowing.prefix().end(),
                         [&](const std::string& outer) {
                           return IsWithin(value.prefix(), *ParsePrefix(outer));
                         });
    default:
      return false;
  }
}

std::string WhatIsLeft(const v1::Narrowing& narrowing) {
  std::vector<std::string> parts;
  if (narrowing.has_min()) {
    parts.push_back(absl::StrCat("at least ", narrowing.min()));
  }
  if (narrowing.has_max()) {
    parts.push_back(absl::StrCat("at most ", narrowing.max()));
  }
  if (!narrowing.choice().empty()) {
    parts.push_back(
        absl::StrCat("one of ", absl::StrJoin(narrowing.choice(), ", ")));
  }
  if (!narrowing.prefix().empty()) {
    parts.push_back(
        absl::StrCat("within ", absl::StrJoin(narrowing.prefix(), ", ")));
  }
  if (narrowing.has_max_length()) {
    parts.push_back(
        absl::StrCat("at most ", narrowing.max_length(), " bytes long"));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace

absl::Status CompileNarrowings(const TextFile& file, int index,
                               const v1::Rule& rule,
                               daemon::CompiledRule& compiled) {
  std::set<std::string> names;
  for (int i = 0; i < rule.parameter_size(); ++i) {
    const v1::Narrowing& narrowing = rule.parameter(i);
    std::string wrong = WrongWith(narrowing);
    if (wrong.empty() && rule.effect() == v1::Rule::DENY) {
      wrong = "is DENY and leaves nothing to choose";
    }
    if (wrong.empty() && !names.insert(narrowing.name()).second) {
      wrong = absl::StrCat("narrows '", narrowing.name(), "' twice");
    }
    if (!wrong.empty()) {
      return file.Complain(file.Where("rule", index, "parameter", i),
                           absl::StrCat("rule '", rule.name(), "' ", wrong));
    }
    *compiled.add_parameter() = narrowing;
  }
  return absl::OkStatus();
}

absl::Status CheckNarrowing(const daemon::CompiledRule& rule,
                            const Parameters& declared,
                            const std::vector<v1::ParameterValue>& values) {
  for (const v1::Narrowing& narrowing : rule.parameter()) {
    const bool given = std::any_of(
        values.begin(), values.end(),
        [&](const auto& value) { return value.name() == narrowing.name(); });
    // What it is if nobody says may be more than the rule leaves.
    if (!given && FindParameter(declared, narrowing.name()) != nullptr) {
      return Refuse(
          v1::REASON_PARAMETER_MISSING,
          absl::StrCat("rule '", rule.name(), "' (", rule.file(), ":",
                       rule.line(), ") wants parameter '", narrowing.name(),
                       "' to be given: ", WhatIsLeft(narrowing)));
    }
    for (const v1::ParameterValue& value : values) {
      if (value.name() != narrowing.name() || Allows(narrowing, value)) {
        continue;
      }
      return Refuse(
          v1::REASON_PARAMETER_NARROWED,
          absl::StrCat("rule '", rule.name(), "' (", rule.file(), ":",
                       rule.line(), ") lets parameter '", narrowing.name(),
                       "' be ", WhatIsLeft(narrowing)));
    }
  }
  return absl::OkStatus();
}

}  // namespace bpfgrant::policy

#include "daemon/loader/parameter_manifest.h"

#include <algorithm>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/tracing_manifest.h"
#include "policy/parameter.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

constexpr size_t kMaxLineBytes = 256;

std::string WrongWithChoices(const v1::Parameter::Enumeration& enumeration) {
  std::set<std::string> names;
  for (const auto& choice : enumeration.choice()) {
    if (!IsName(choice.name())) {
      return "a choice's name must match [a-z][a-z0-9_]{0,62}";
    }
    if (!names.insert(choice.name()).second) {
      return absl::StrCat("choice '", choice.name(), "' is named twice");
    }
  }
  if (names.empty() || enumeration.choice_size() > kMaxChoices) {
    return absl::StrCat("an enumeration has 1 to ", kMaxChoices, " choices");
  }
  return "";
}

std::string WrongWithType(const v1::Parameter& parameter) {
  switch (parameter.type_case()) {
    case v1::Parameter::kInteger:
      return parameter.integer().min() > parameter.integer().max()
                 ? "nothing is between min and max"
                 : "";
    case v1::Parameter::kEnumeration:
      return WrongWithChoices(parameter.enumeration());
    case v1::Parameter::kBytes:
      return parameter.bytes().max_length() == 0 ||
                     parameter.bytes().max_length() > kMaxValueBytes ||
                     parameter.bytes().min_length() >
                         parameter.bytes().max_length()
                 ? absl::StrCat("max_length is 1 to ", kMaxValueBytes,
                                ", and not below min_length")
                 : "";
    case v1::Parameter::kPrefix:
      return parameter.prefix().ipv4() || parameter.prefix().ipv6()
                 ? ""
                 : "a prefix is of ipv4, ipv6 or both";
    case v1::Parameter::kFile:
      return parameter.file().kind() == v1::Parameter::FILE_KIND_UNSPECIFIED
                 ? "the kind of file must be given"
                 : "";
    case v1::Parameter::TYPE_NOT_SET:
      break;
  }
  return "a parameter is an integer, an enumeration, bytes, a prefix or a file";
}

// Where an entry's value goes.
std::string WrongWithEntry(const v1::Parameter& parameter,
                           const v1::Manifest& manifest) {
  const v1::Parameter::Entry& entry = parameter.entry();
  const auto map = std::find_if(
      manifest.map().begin(), manifest.map().end(),
      [&](const v1::Manifest::Map& one) { return one.name() == entry.map(); });
  if (map == manifest.map().end()) {
    return absl::StrCat("there is no map '", entry.map(), "'");
  }
  const v1::HandleKind kind = parameter.has_file()
                                  ? v1::HANDLE_KIND_SOCKET_ARRAY
                                  : v1::HANDLE_KIND_ARRAY;
  if (map->kind() != kind || map->swappable() ||
      map->scope() == v1::Manifest::SCOPE_SESSION) {
    return absl::StrCat("it goes into a map of kind ",
                        v1::HandleKind_Name(kind),
                        ", of SCOPE_GRANT and not swappable");
  }
  // The kernel makes such a map read-only for the daemon, too.
  if (map->rights() == v1::RIGHTS_READ) {
    return "it goes into a map without a handle, or one with which clients may "
           "write";
  }
  return "";
}

std::string WrongWithPlace(const v1::Parameter& parameter,
                           const v1::Manifest& manifest) {
  if (parameter.has_constant()) {
    if (parameter.has_file()) return "an fd goes into an entry of a map";
    if (parameter.optional()) return "a constant needs a default instead";
    return IsIdentifier(parameter.constant()) ? ""
                                              : "constant is a variable's name";
  }
  if (parameter.has_entry()) return WrongWithEntry(parameter, manifest);
  return "it must say where its value goes: constant or entry";
}

// "" if nothing is.
std::string WrongWith(const v1::Parameter& parameter,
                      const v1::Manifest& manifest) {
  if (!IsName(parameter.name())) {
    return "a parameter's name must match [a-z][a-z0-9_]{0,62}";
  }
  if (parameter.description().size() > kMaxLineBytes ||
      parameter.integer().unit().size() > kMaxNameBytes) {
    return "its description or unit is too long";
  }
  if (std::string wrong = WrongWithType(parameter); !wrong.empty()) {
    return wrong;
  }
  if (std::string wrong = WrongWithPlace(parameter, manifest); !wrong.empty()) {
    return wrong;
  }
  if (!parameter.has_default_()) return "";
  if (parameter.has_file()) return "an fd has no default";
  return policy::CheckValue(parameter, parameter.default_()).ok()
             ? ""
             : absl::StrCat("its default is not ", policy::RangeOf(parameter));
}

}  // namespace

absl::Status CheckParameters(const TextFile& text,
                             const v1::Manifest& manifest) {
  std::set<std::string> names;
  size_t files = 0;
  for (int i = 0; i < manifest.parameter_size(); ++i) {
    const v1::Parameter& parameter = manifest.parameter(i);
    std::string wrong = WrongWith(parameter, manifest);
    files += parameter.has_file() ? 1 : 0;
    if (wrong.empty() && !names.insert(parameter.name()).second) {
      wrong = absl::StrCat("'", parameter.name(), "' is named twice");
    }
    if (wrong.empty() && i >= kMaxParameters) {
      wrong = absl::StrCat("a program has at most ", kMaxParameters);
    }
    if (wrong.empty() && files > kMaxFileParameters) {
      wrong = absl::StrCat("at most ", kMaxFileParameters, " are files");
    }
    if (wrong.empty() && (IsLoop(manifest) || IsTracing(manifest))) {
      wrong = "loops and tracing programs have none";
    }
    if (!wrong.empty()) {
      return text.Complain(
          text.Where("parameter", i),
          absl::StrCat("parameter '", parameter.name(), "': ", wrong));
    }
  }
  return absl::OkStatus();
}

bool NeedsChoice(const v1::Manifest& manifest) {
  return std::any_of(manifest.parameter().begin(), manifest.parameter().end(),
                     [](const v1::Parameter& parameter) {
                       return parameter.has_constant() &&
                              !parameter.has_default_();
                     });
}

}  // namespace bpfgrant::daemon

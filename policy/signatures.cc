#include "policy/signatures.h"

#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/text/text_file.h"
#include "proto/wire/limits.h"

namespace bpfgrant::policy {
namespace {

constexpr std::string_view kField = "signature";

// A name with "*" and "?" in it.
bool IsPattern(std::string_view text) {
  return !text.empty() && text.size() <= kMaxNameBytes &&
         std::ranges::all_of(text, [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) ||
                  c == '_' || c == '*' || c == '?';
         });
}

// What is wrong with rule `i` by itself.
absl::Status Check(const TextFile& file, const v1::SignatureRule& rule, int i,
                   absl::Span<const std::string> directories) {
  const auto complain = [&](std::string_view field, const std::string& what,
                            int element = -1) {
    return file.Complain(file.Where(kField, i, field, element),
                         absl::StrCat("signature '", rule.name(), "' ", what));
  };
  if (rule.name().empty() || rule.name().size() > kMaxNameBytes) {
    return complain("name", absl::StrCat("needs a name of at most ",
                                         kMaxNameBytes, " bytes"));
  }
  if (rule.directory().empty() && rule.program().empty()) {
    return complain("name", "is about nothing: it needs directory or program");
  }
  for (int n = 0; n < rule.directory_size(); ++n) {
    if (std::ranges::find(directories, rule.directory(n)) !=
        directories.end()) {
      continue;
    }
    return complain("directory",
                    absl::StrCat("names ", rule.directory(n),
                                 ", which is no directory of programs; these "
                                 "are: ",
                                 absl::StrJoin(directories, ", ")),
                    n);
  }
  for (int n = 0; n < rule.program_size(); ++n) {
    if (!IsPattern(rule.program(n))) {
      return complain("program",
                      absl::StrCat("names program '", rule.program(n),
                                   "': lower-case letters, digits, _, * and ?"),
                      n);
    }
  }
  for (int n = 0; n < rule.key_size(); ++n) {
    if (!IsKeyName(rule.key(n))) {
      return complain("key",
                      absl::StrCat("names key '", rule.key(n),
                                   "': letters, digits, '.', '_' and '-'"),
                      n);
    }
  }
  return absl::OkStatus();
}

bool Concerns(const v1::SignatureRule& rule, std::string_view directory,
              const std::string& program) {
  const bool there =
      rule.directory().empty() ||
      std::ranges::find(rule.directory(), directory) != rule.directory().end();
  return there &&
         (rule.program().empty() ||
          std::ranges::any_of(rule.program(), [&](const std::string& pattern) {
            return fnmatch(pattern.c_str(), program.c_str(), 0) == 0;
          }));
}

}  // namespace

absl::StatusOr<SignatureRules> SignatureRules::Compile(
    absl::Span<const PolicyText> texts,
    absl::Span<const std::string> directories) {
  SignatureRules compiled;
  std::map<std::string, std::string> places;  // by name
  for (const PolicyText& text : texts) {
    TextFile file(text.file);
    v1::Policy policy;
    if (auto status = file.Parse(text.bytes, policy); !status.ok()) {
      return status;
    }
    for (int i = 0; i < policy.signature_size(); ++i) {
      const v1::SignatureRule& rule = policy.signature(i);
      if (auto status = Check(file, rule, i, directories); !status.ok()) {
        return status;
      }
      std::string place =
          absl::StrCat(text.file, ":", file.Where(kField, i).line);
      const auto [earlier, added] = places.emplace(rule.name(), place);
      if (!added) {
        return file.Complain(
            file.Where(kField, i, "name"),
            absl::StrCat("signature '", rule.name(),
                         "' has its name from the one at ", earlier->second));
      }
      compiled.rules_.push_back({rule, std::move(place)});
    }
  }
  return compiled;
}

std::vector<const CompiledSignatureRule*> SignatureRules::For(
    std::string_view directory, std::string_view program) const {
  std::vector<const CompiledSignatureRule*> found;
  for (const CompiledSignatureRule& rule : rules_) {
    if (Concerns(rule.rule, directory, std::string(program))) {
      found.push_back(&rule);
    }
  }
  return found;
}

bool IsKeyName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         absl::ascii_isalnum(name.front()) &&
         std::ranges::all_of(name, [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

}  // namespace bpfgrant::policy

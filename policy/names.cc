#include "policy/names.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "policy/cgroup.h"
#include "policy/glob.h"
#include "proto/wire/limits.h"

namespace bpfgrant::policy {
namespace {

constexpr size_t kDigestDigits = 64;
constexpr std::string_view kFsverityPrefix = "sha256:";

std::string Complain(std::string_view kind, std::string_view name,
                     std::string_view what) {
  return absl::StrCat("names ", std::string(kind), " '", std::string(name),
                      "': ", std::string(what));
}

bool IsWord(std::string_view text, std::string_view also) {
  return !text.empty() && text.size() <= kMaxNameBytes &&
         std::all_of(text.begin(), text.end(), [also](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) ||
                  c == '_' || also.find(c) != std::string_view::npos;
         });
}

bool IsDigest(std::string_view text) {
  return text.size() == kDigestDigits &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

// An example of what the pattern matches: each wildcard stands for one letter.
std::string ExampleOf(std::string_view pattern) {
  return absl::StrReplaceAll(absl::string_view(pattern.data(), pattern.size()),
                             {{"*", "x"}, {"?", "x"}});
}

// Absolute, and as the kernel would write it.
bool IsNormalPath(std::string_view path) {
  if (path.size() < 2 || path.front() != '/') return false;
  const std::vector<std::string> names =
      absl::StrSplit(absl::string_view(path.data() + 1, path.size() - 1), '/');
  return std::none_of(names.begin(), names.end(), [](const std::string& name) {
    return name.empty() || name == "." || name == "..";
  });
}

}  // namespace

std::string JudgeProgram(std::string_view pattern) {
  const bool begins_well =
      !pattern.empty() &&
      (absl::ascii_islower(pattern.front()) || IsGlob(pattern.substr(0, 1)));
  if (begins_well && IsWord(pattern, "*?")) return "";
  return Complain(
      "program", pattern,
      absl::StrCat("lower-case letters, digits and _, at most ", kMaxNameBytes,
                   "; * stands for any of them, ? for one"));
}

std::string JudgeTag(std::string_view tag) {
  if (IsWord(tag, "") && absl::ascii_islower(tag.front())) return "";
  return Complain("tag", tag,
                  absl::StrCat("lower-case letters, digits and _, at most ",
                               kMaxNameBytes));
}

std::string JudgeUnit(std::string_view pattern) {
  if (pattern.ends_with(".slice")) {
    return Complain("unit", pattern, "that is a slice; say `slice`");
  }
  // What stands behind a last '*' can be any type.
  const std::string example = ExampleOf(pattern);
  if (IsUnitName(example) ||
      (pattern.ends_with('*') && IsUnitName(example + ".service"))) {
    return "";
  }
  return Complain("unit", pattern,
                  "no unit can be called so; its name ends in its type, such "
                  "as .service");
}

std::string JudgeSlice(std::string_view pattern) {
  if (IsSliceName(ExampleOf(pattern))) return "";
  return Complain("slice", pattern,
                  "no slice can be called so; its name ends in .slice");
}

std::string JudgeCgroup(std::string_view path) {
  if (path == "/") {
    return Complain("cgroup", path, "everything is in it; leave it out");
  }
  if (IsNormalPath(path)) return "";
  return Complain("cgroup", path,
                  "an absolute path below the root of cgroups, without . or "
                  ".. and without a / at its end");
}

std::string JudgeLabel(std::string_view pattern) {
  if (!pattern.empty()) return "";
  return "names an empty label: what has none cannot be named";
}

std::string JudgeExecutable(const v1::Executable& executable) {
  if (executable.path().empty() && executable.sha256().empty() &&
      executable.fsverity().empty()) {
    return "names an executable and says nothing of it: path, sha256 or "
           "fsverity";
  }
  if (!executable.path().empty() && !IsNormalPath(executable.path())) {
    return Complain("executable", executable.path(),
                    "an absolute path, without . or ..");
  }
  if (!executable.sha256().empty() && !IsDigest(executable.sha256())) {
    return Complain("sha256", executable.sha256(),
                    "64 lower-case hexadecimal digits");
  }
  const std::string_view fsverity = executable.fsverity();
  if (!fsverity.empty() &&
      !(fsverity.starts_with(kFsverityPrefix) &&
        IsDigest(fsverity.substr(kFsverityPrefix.size())))) {
    return Complain("fsverity", fsverity,
                    "`sha256:` and 64 lower-case hexadecimal digits, as "
                    "`fsverity measure` prints them");
  }
  return "";
}

}  // namespace bpfgrant::policy

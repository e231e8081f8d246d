#include "policy/glob.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/strings/string_view.h"

namespace bpfgrant::policy {

bool IsGlob(std::string_view pattern) {
  return pattern.find_first_of("*?") != std::string_view::npos;
}

bool GlobMatches(std::string_view pattern, std::string_view text) {
  constexpr size_t kNone = std::string_view::npos;
  size_t p = 0;
  size_t t = 0;
  size_t star = kNone;  // the last '*' met, and where its text ends so far
  size_t covered = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      covered = t;
    } else if (p < pattern.size() &&
               (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != kNone) {
      p = star + 1;
      t = ++covered;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == kNone;
}

void Patterns::Add(const std::string& pattern) {
  if (pattern == "*") {
    all_ = true;
  } else if (IsGlob(pattern)) {
    globs_.push_back(pattern);
  } else {
    exact_.insert(pattern);
  }
}

bool Patterns::Match(std::string_view text) const {
  if (all_) return true;
  if (!exact_.empty() &&
      exact_.contains(absl::string_view(text.data(), text.size()))) {
    return true;
  }
  return std::any_of(globs_.begin(), globs_.end(),
                     [text](const std::string& pattern) {
                       return GlobMatches(pattern, text);
                     });
}

}  // namespace bpfgrant::policy

// Patterns of the policy: '*' stands for any run of characters, '?' for one.
// Nothing else is special, a backslash neither: units have them in their names.

#ifndef POLICY_GLOB_H_
#define POLICY_GLOB_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"

namespace bpfgrant::policy {

bool IsGlob(std::string_view pattern);

// In time of the product of their lengths, whatever the pattern.
bool GlobMatches(std::string_view pattern, std::string_view text);

// Several patterns, any of which may match.
class Patterns {
 public:
  Patterns() = default;
  template <typename Strings>
  explicit Patterns(const Strings& patterns) {
    for (const std::string& pattern : patterns) Add(pattern);
  }

  bool empty() const { return !all_ && exact_.empty() && globs_.empty(); }
  bool has_globs() const { return all_ || !globs_.empty(); }
  bool Match(std::string_view text) const;

 private:
  void Add(const std::string& pattern);

  bool all_ = false;  // one of them is "*"
  absl::flat_hash_set<std::string> exact_;
  std::vector<std::string> globs_;
};

}  // namespace bpfgrant::policy

#endif  // POLICY_GLOB_H_

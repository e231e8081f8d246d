// The parser of policies and what it checks.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "policy/policy.h"

namespace bpfgrant::policy {
namespace {

// Somebody has every name.
class AnyName : public NameResolver {
 public:
  absl::StatusOr<uid_t> User(std::string_view) const override { return 1000; }
  absl::StatusOr<gid_t> Group(std::string_view) const override { return 1000; }
};

void CompileTwice(const std::string& text) {
  const PolicyText one{"fuzz.policy", text};
  const auto rules = Compile({one}, AnyName());
  // No two rules have one name.
  const bool again = Compile({one, one}, AnyName()).ok();
  if (rules.ok() && !rules->empty() && again) std::abort();
  if (rules.ok() && Rules(*rules).size() != rules->size()) std::abort();
}

}  // namespace
}  // namespace bpfgrant::policy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bpfgrant::policy::CompileTwice(
      std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}

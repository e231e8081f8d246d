// Compiles policies for tests, with users and groups that no machine need have.

#ifndef TESTS_UNIT_COMPILE_TEXT_H_
#define TESTS_UNIT_COMPILE_TEXT_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "policy/policy.h"

namespace bpfgrant::policy {

// alice is 1000, operators are 50; the directory that knows "broken" is down.
class FakeResolver : public NameResolver {
 public:
  absl::StatusOr<uid_t> User(std::string_view name) const override {
    if (name == "alice") return 1000;
    return Missing(name);
  }
  absl::StatusOr<gid_t> Group(std::string_view name) const override {
    if (name == "operators") return 50;
    return Missing(name);
  }

 private:
  static absl::Status Missing(std::string_view name) {
    if (name == "broken") return absl::UnavailableError("directory is down");
    return absl::NotFoundError("not there");
  }
};

// Of one file, named "p".
inline absl::StatusOr<std::vector<daemon::CompiledRule>> CompileOne(
    const std::string& text) {
  const std::vector<PolicyText> texts = {{"p", text}};
  return Compile(texts, FakeResolver());
}

}  // namespace bpfgrant::policy

#endif  // TESTS_UNIT_COMPILE_TEXT_H_

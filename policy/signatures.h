// What the policy wants signed: its SignatureRules. Pure, as all of policy/.

#ifndef POLICY_SIGNATURES_H_
#define POLICY_SIGNATURES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/policy.pb.h"
#include "policy/policy.h"

namespace bpfgrant::policy {

struct CompiledSignatureRule {
  v1::SignatureRule rule;
  std::string place;  // "file:line"
};

class SignatureRules {
 public:
  SignatureRules() = default;

  // Compiles those of the files, which Compile has let pass. `directories` are
  // the catalog's. The first complaint ends it: REASON_FILE_INVALID,
  // "file:line:column: what". Refused are: no name, a name used twice, a rule
  // about nothing, a directory that is none of the catalog's, names that no
  // program or no key can have.
  static absl::StatusOr<SignatureRules> Compile(
      absl::Span<const PolicyText> texts,
      absl::Span<const std::string> directories);

  // Those about what `directory` says of `program`. All of them must be met.
  // Valid as long as this object.
  std::vector<const CompiledSignatureRule*> For(std::string_view directory,
                                                std::string_view program) const;

 private:
  std::vector<CompiledSignatureRule> rules_;
};

// [A-Za-z0-9][A-Za-z0-9._-]{0,62}
bool IsKeyName(std::string_view name);

}  // namespace bpfgrant::policy

#endif  // POLICY_SIGNATURES_H_

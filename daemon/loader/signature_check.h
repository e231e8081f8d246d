// Whether what the policy wants signed is signed, by a key that counts.

#ifndef DAEMON_LOADER_SIGNATURE_CHECK_H_
#define DAEMON_LOADER_SIGNATURE_CHECK_H_

#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/loader/key_ring.h"
#include "daemon/loader/safe_file.h"
#include "policy/signatures.h"

namespace bpfgrant::daemon {

class SignatureCheck {
 public:
  // Wants nothing signed.
  SignatureCheck() = default;
  SignatureCheck(policy::SignatureRules rules, KeyRing keys)
      : rules_(std::move(rules)), keys_(std::move(keys)) {}

  struct Subject {
    std::string directory;  // of programs, as the configuration names it
    std::string program;
    std::string name;  // of the file, from there on: as SignedBytes has it
  };

  struct Finding {
    // Which rule is not met, and what is wrong with each signature. "": no rule
    // wants it signed, or FILE.sig beside it has what each rule wants.
    std::string objection;
    // The keys that signed it, if a rule wants it signed.
    std::set<std::string> keys;
  };

  // About `bytes`, of the file `file` in `folder`.
  Finding Check(const Subject& subject, const SafeDirectory& folder,
                const std::string& file, std::string_view bytes) const;

 private:
  policy::SignatureRules rules_;
  KeyRing keys_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_SIGNATURE_CHECK_H_

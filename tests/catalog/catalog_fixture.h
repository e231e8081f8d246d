// What the tests of the catalog share: a folder of their own with manifests and
// objects in it, and a look at what was loaded.

#ifndef TESTS_CATALOG_CATALOG_FIXTURE_H_
#define TESTS_CATALOG_CATALOG_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/loader/admission.h"
#include "daemon/mitigations.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/private_folder.h"

namespace bpfgrant::daemon {

// Skips a test that needs CAP_BPF where that is missing.
#define REQUIRE_BPF() \
  if (!::bpfgrant::daemon::HasBpf()) GTEST_SKIP() << "privilege: CAP_BPF"

bool HasBpf();

// The bytes of an object that this build made: "good", "no_gate", "steer", ...
std::string ObjectBytes(const std::string& variant);

// A manifest that approves `object` (its file is NAME.bpf.o) as program `name`;
// `from` is replaced by `to` in its text.
std::string SampleManifest(const std::string& name, std::string_view object,
                           const std::string& from = "",
                           const std::string& to = "");
std::string SteerManifest(const std::string& name, std::string_view object);

// A folder that goes away with the test, and what stands in it.
class TemporaryFolder {
 public:
  const std::string& path() const { return path_; }
  // Writes, or writes anew, a file of mode 0644; returns its path.
  std::string Write(const std::string& name, std::string_view bytes) const;
  // The program `name`, approved, from the object `variant`.
  void WriteProgram(const std::string& name,
                    const std::string& variant = "good") const;

 private:
  const test::PrivateFolder folder_;
  const std::string path_ = folder_.path();
};

// Admits the entry "NAME.manifest" of `folder`.
std::shared_ptr<const Program> AdmitFrom(const std::string& folder,
                                         const std::string& name,
                                         Admission& admission);
// The same with an admission of its own.
std::shared_ptr<const Program> AdmitFrom(const std::string& folder,
                                         const std::string& name,
                                         const Mitigations& mitigations = {});

// The reason for which `program` is not available; unspecified if it is.
v1::Reason ReasonFor(const Program& program);
const std::string& RefusalFor(const Program& program);

// What the loaded filter answers to a packet of 64 bytes; -1 if the kernel does
// not run it.
int RunFilter(int program);

// An array of the gate's shape, with `nonce` in `slot`. -1 if that fails.
int MakeGate(uint32_t slot, uint64_t nonce);

// A status of this reason whose message has this in it.
MATCHER_P2(Refused, reason, text, "") {
  *result_listener << "which is " << arg.ToString();
  return ReasonOf(arg) == reason &&
         std::string(arg.message()).find(text) != std::string::npos;
}

}  // namespace bpfgrant::daemon

#endif  // TESTS_CATALOG_CATALOG_FIXTURE_H_

// Admission: the path of one entry of the catalog, from its manifest's bytes to
// a program that this kernel is known to take.
//
// It must not hand anything out: an admitted program is loaded anew for each
// grant, by instance.h.

#ifndef DAEMON_LOADER_ADMISSION_H_
#define DAEMON_LOADER_ADMISSION_H_

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/loader/admission_limits.h"
#include "daemon/loader/drop_in.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/needs.h"
#include "daemon/loader/safe_file.h"
#include "daemon/loader/trial.h"
#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// One program of the catalog, available or not. Immutable once admitted.
struct Program {
  // What the broker is told. `entry.description().summary()` says whether the
  // program is available; if not, the rest is filled as far as it is known.
  CatalogEntry entry;
  // Null if the manifest does not parse.
  std::unique_ptr<Manifest> manifest;
  // The approved bytes.
  SealedBytes object;
  // Of a loop: the same, linked behind the entry.
  SealedBytes linked;
  // Of the variants that it is not.
  std::vector<std::string> other_identities;
  Amounts amounts;  // once it was tried
  // Where the object was read. Only without the mitigation read_once.
  std::optional<SafeDirectory> folder;

  const std::string& name() const {
    return entry.description().summary().name();
  }
  bool available() const { return entry.description().summary().available(); }
  // What every instance is loaded from.
  std::string_view loadable() const {
    return linked.view().empty() ? object.view() : linked.view();
  }
};

// A manifest's file name without its suffix; `file` must outlive it.
absl::string_view StemOf(absl::string_view file);

// A program that is not available because of `why`, which must not be OK.
std::unique_ptr<Program> Unavailable(absl::string_view stem, std::string file,
                                     const absl::Status& why);

// All of admission that needs no kernel: parses `bytes`, the manifest in the
// file `file` of `folder`, reads the object beside it, and compares digest,
// program and maps. Never fails: what is wrong is in the program. A program
// that comes out available has not been shown to the verifier yet.
// Of a manifest with variants, `variant`.
std::unique_ptr<Program> Inspect(const SafeDirectory& folder,
                                 const std::string& file,
                                 std::string_view bytes,
                                 const Mitigations& mitigations,
                                 int variant = 0,
                                 absl::Span<const DropIn> drop_ins = {});

// The same of each variant, in their order, which are compared with each other,
// too; of a manifest without, that one program. What is wrong with one of them
// by itself is wrong on every kernel.
std::vector<std::unique_ptr<Program>> InspectVariants(
    const SafeDirectory& folder, const std::string& file,
    std::string_view bytes, const Mitigations& mitigations,
    absl::Span<const DropIn> drop_ins = {});

// Makes `program` one that is not available, because of `why`.
void MarkUnavailable(const absl::Status& why, Program& program);

// Whether the administrator's limits allow a program that Inspect let pass;
// fills its amounts. REASON_ADMISSION_LIMIT.
absl::Status CheckLimits(const AdmissionLimits& limits, Program& program);
// Counts one that they allow among all, in `total`; it is not available if all
// together are too much. REASON_ADMISSION_LIMIT.
void CountTotal(const AdmissionLimits& limits, Amounts& total,
                Program& program);

// Whether another variant may be tried, now that `program` was: it is not
// available, and the reason is the kernel's. What may pass is no reason for a
// lesser one.
bool MayAnotherDo(const Program& program);

class Admission {
 public:
  // The kernel does not let this process make maps: as Trial::Create.
  static absl::StatusOr<Admission> Create(const v1::KernelFacts& kernel,
                                          const Mitigations& mitigations);

  // What binds the entries admitted from now on, counted from the first.
  // Without this, what is built in.
  void SetLimits(AdmissionLimits limits);

  // Inspects and verifies one entry. Never fails: what is wrong is in the
  // program. A manifest and object that were verified before are not verified
  // again. Of a manifest with variants it is the first that this kernel takes;
  // the entry says what became of each.
  std::shared_ptr<const Program> Admit(const SafeDirectory& folder,
                                       const std::string& file,
                                       std::string_view bytes,
                                       absl::Span<const DropIn> drop_ins = {});

  // Asks the kernel what it makes of a program that Inspect let pass, of a
  // manifest with variants `variant`. It is not available if that is no good.
  void Try(Program& program, int variant);

  // Forgets what was verified, but for these identities.
  void KeepOnly(const std::set<std::string>& identities);

  const Mitigations& mitigations() const { return mitigations_; }
  // How often the verifier has been asked.
  int trials() const { return trials_; }

 private:
  Admission(const v1::KernelFacts& kernel, const Mitigations& mitigations,
            Trial trial)
      : preemptible_(kernel.preemptible()),
        has_loops_(kernel.io_uring_loops()),
        preemption_(kernel.preemption()),
        mitigations_(mitigations),
        trial_(std::move(trial)) {}

  absl::Status CheckNeeds(const Manifest& manifest, int variant);
  const TrialResult& Verify(const Program& program, TrialResult& unsettled);
  void Finish(const TrialResult& result, Program& program) const;

  bool preemptible_;
  bool has_loops_;
  std::string preemption_;
  Mitigations mitigations_;
  Trial trial_;
  AdmissionLimits limits_;
  Amounts total_;
  std::optional<KernelTypes> kernel_types_;   // once a variant needs something
  std::map<std::string, TrialResult> known_;  // by identity
  int trials_ = 0;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ADMISSION_H_

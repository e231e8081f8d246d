#include "daemon/loader/catalog_check.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/admission_files.h"
#include "daemon/loader/catalog_files.h"
#include "daemon/loader/confinement.h"
#include "daemon/loader/forecast.h"
#include "daemon/loader/kernel.h"
#include "daemon/loader/key_ring.h"
#include "daemon/loader/needs.h"
#include "daemon/loader/policy_files.h"
#include "daemon/loader/signature_check.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kNotVerified[] =
    "what the verifier makes of the programs, and what kernel modules add";

class Check {
 public:
  // Chooses how to judge, and says so in the reply.
  static absl::StatusOr<Check> OfThisKernel(const v1::KernelFacts& facts);
  static absl::StatusOr<Check> OfBtf(int file, const std::string& name);

  absl::StatusOr<v1::CheckReply> Run(const CheckOptions& options);

 private:
  // False: there is no such program after all.
  bool CheckEntry(const CatalogFiles& files, const std::string& file,
                  const Layer& from, v1::CheckedProgram& checked);
  void CheckVariants(std::vector<std::unique_ptr<Program>> programs,
                     v1::CheckedProgram& checked);
  void Judge(Program& program, int variant, v1::CheckedVariant& checked);

  void CheckRules(const CheckOptions& options);

  v1::CheckReply reply_;
  Mitigations mitigations_;  // those that judge files
  AdmissionLimits limits_;
  Amounts total_;                       // of what is usable
  SignatureCheck signatures_;           // what the policy in the folders wants
  std::optional<Admission> admission_;  // if it can load
  std::optional<KernelTypes> types_;    // if not, unless there are none
  absl::Status none_;  // not OK: no program fits, for this reason
};

absl::StatusOr<Check> Check::OfThisKernel(const v1::KernelFacts& facts) {
  Check check;
  check.reply_.set_kernel(facts.release());
  if (MayLoad()) {
    auto admission = Admission::Create(facts, Mitigations());
    if (admission.ok()) {
      check.admission_.emplace(*std::move(admission));
      check.reply_.set_loaded(true);
      return check;
    }
    if (absl::IsUnimplemented(admission.status())) {
      check.none_ = Refuse(v1::REASON_KERNEL_TOO_OLD,
                           "the kernel has no bpf(2) (CONFIG_BPF_SYSCALL)");
      return check;
    }
    if (!absl::IsPermissionDenied(admission.status())) {
      return admission.status();
    }
  }
  check.reply_.set_unchecked(
      absl::StrCat(kNotVerified,
                   ": to load them takes CAP_BPF and CAP_PERFMON, outside of "
                   "containers that forbid bpf(2); run it as root"));
  auto types = KernelTypes::OfThisKernel();
  if (types.ok()) {
    check.types_.emplace(*std::move(types));
  } else {
    check.reply_.set_unchecked(absl::StrCat(
        "anything of the kernel's: ", std::string(types.status().message()),
        "; and ", check.reply_.unchecked()));
  }
  return check;
}

absl::StatusOr<Check> Check::OfBtf(int file, const std::string& name) {
  auto types = KernelTypes::OfFile(file);
  if (!types.ok()) {
    return absl::Status(
        types.status().code(),
        absl::StrCat(name, ": ", std::string(types.status().message())));
  }
  Check check;
  check.reply_.set_kernel(name);
  check.reply_.set_unchecked(
      absl::StrCat(kNotVerified, ": for that the kernel has to run"));
  check.types_.emplace(*std::move(types));
  return check;
}

absl::StatusOr<v1::CheckReply> Check::Run(const CheckOptions& options) {
  mitigations_.file_safety = options.judge_files;
  auto limits = ReadAdmissionLimits(options.admission_files, mitigations_);
  if (!limits.ok()) return limits.status();
  limits_ = *std::move(limits);
  if (admission_.has_value()) admission_->SetLimits(limits_);
  if (options.policy) CheckRules(options);
  const auto files = CatalogFiles::Find(options.folders, mitigations_);
  if (!files.ok()) return files.status();
  std::set<std::string> missing(options.programs.begin(),
                                options.programs.end());
  for (const auto& [file, from] : files->manifests()) {
    const std::string name(StemOf(file));
    if (!options.programs.empty() && !missing.contains(name)) continue;
    v1::CheckedProgram checked;
    if (!CheckEntry(*files, file, from, checked)) continue;
    missing.erase(name);
    *reply_.add_program() = std::move(checked);
  }
  if (!missing.empty()) {
    return Refuse(v1::REASON_UNKNOWN_PROGRAM,
                  absl::StrCat("there is no program '", *missing.begin(), "'"));
  }
  return std::move(reply_);
}

void Check::CheckRules(const CheckOptions& options) {
  PolicyCheck check =
      CheckPolicy(options.folders, options.known_folders, mitigations_);
  if (check.complaints.empty()) {
    const auto trust = limits_.CheckTrust(check.policy.rules, MachineNames());
    if (!trust.ok()) check.complaints.push_back(trust);
    auto keys = KeyRing::Read(options.key_folders, mitigations_);
    if (keys.ok()) {
      signatures_ =
          SignatureCheck(std::move(check.policy.signatures), *std::move(keys));
    } else {
      check.complaints.push_back(keys.status());
    }
  }
  v1::CheckedPolicy& policy = *reply_.mutable_policy();
  policy.set_rules(static_cast<uint32_t>(check.policy.rules.size()));
  for (const absl::Status& status : check.complaints) {
    const v1::Refusal refusal = RefusalOf(status);
    v1::Complaint& complaint = *policy.add_complaint();
    complaint.set_reason(refusal.reason());
    complaint.set_text(refusal.message());
  }
}

void Refused(const Program& program, v1::CheckedProgram& checked) {
  const v1::DescribeReply& description = program.entry.description();
  checked.set_reason(description.summary().reason());
  checked.set_refusal(description.refusal());
}

bool Check::CheckEntry(const CatalogFiles& files, const std::string& file,
                       const Layer& from, v1::CheckedProgram& checked) {
  std::vector<std::unique_ptr<Program>> programs;
  const std::string path = from.folder->PathOf(file);
  const auto approval = files.Read(file, signatures_);
  if (!approval.ok()) {
    programs.push_back(Unavailable(StemOf(file), path, approval.status()));
  } else if (approval->masked()) {
    return false;
  } else {
    programs = InspectVariants(*from.folder, file, approval->manifest.view(),
                               mitigations_, approval->drop_ins);
  }
  checked.set_name(programs[0]->name());
  checked.set_file(path);
  if (programs[0]->manifest == nullptr) {
    Refused(*programs[0], checked);
  } else {
    CheckVariants(std::move(programs), checked);
  }
  return true;
}

// Chooses as Admission does.
void Check::CheckVariants(std::vector<std::unique_ptr<Program>> programs,
                          v1::CheckedProgram& checked) {
  const auto broken = std::ranges::find_if(
      programs,
      [](const std::unique_ptr<Program>& one) { return !one->available(); });
  // One that is wrong by itself is wrong with all.
  bool open = broken == programs.end();
  if (!open) Refused(**broken, checked);
  for (size_t i = 0; i < programs.size(); ++i) {
    Program& program = *programs[i];
    v1::CheckedVariant& variant = *checked.add_variant();
    if (program.available()) Judge(program, static_cast<int>(i), variant);
    if (open && program.available()) CountTotal(limits_, total_, program);
    const v1::Manifest& manifest = program.manifest->message();
    if (!manifest.variant().empty()) {
      variant.set_name(manifest.variant(static_cast<int>(i)).name());
    }
    variant.set_function(manifest.program().function());
    const v1::DescribeReply& description = program.entry.description();
    variant.set_digest(description.digest());
    variant.set_fits(program.available());
    variant.set_chosen(open && program.available());
    variant.set_reason(description.summary().reason());
    variant.set_refusal(description.refusal());
    variant.set_verifier_log(description.verifier_log());
    if (open && !variant.chosen()) Refused(program, checked);
    checked.set_usable(checked.usable() || variant.chosen());
    open = open && MayAnotherDo(program);
  }
  if (checked.usable()) {
    checked.clear_reason();
    checked.clear_refusal();
  }
}

void Check::Judge(Program& program, int variant, v1::CheckedVariant& checked) {
  if (!none_.ok()) {
    MarkUnavailable(none_, program);
  } else if (admission_.has_value()) {
    admission_->Try(program, variant);
  } else if (auto status = CheckLimits(limits_, program); !status.ok()) {
    MarkUnavailable(status, program);
  } else if (types_.has_value()) {
    const Forecast forecast = Foretell(program, variant, *types_);
    if (!forecast.against.ok()) MarkUnavailable(forecast.against, program);
    *checked.mutable_open() = {forecast.open.begin(), forecast.open.end()};
  }
}

absl::StatusOr<std::string> RunCheck(const CheckOptions& options, int btf,
                                     const v1::KernelFacts& facts) {
  auto check = btf < 0 ? Check::OfThisKernel(facts)
                       : Check::OfBtf(btf, options.btf_file);
  if (!check.ok()) return check.status();
  const auto reply = check->Run(options);
  if (!reply.ok()) return reply.status();
  return reply->SerializeAsString();
}

}  // namespace

absl::StatusOr<v1::CheckReply> CheckCatalog(const CheckOptions& options) {
  // Both before the child gives up the right to.
  UniqueFd btf;
  v1::KernelFacts facts;
  if (options.btf_file.empty()) {
    facts = ReadKernelFacts();
  } else {
    btf.reset(
        open(options.btf_file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!btf.valid()) {
      return absl::InvalidArgumentError(
          absl::StrCat(options.btf_file, ": ", std::strerror(errno)));
    }
  }
  const auto bytes = RunConfined(
      [&] { return RunCheck(options, btf.get(), facts); }, options.deadline);
  if (!bytes.ok()) return bytes.status();
  v1::CheckReply reply;
  if (!reply.ParseFromString(*bytes)) {
    return absl::InternalError("the check's answer makes no sense");
  }
  return reply;
}

}  // namespace bpfgrant::daemon

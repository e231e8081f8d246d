#include "daemon/loader/admission.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/interface.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/map_memory.h"
#include "daemon/loader/object.h"
#include "daemon/loader/object_check.h"
#include "daemon/loader/object_uses.h"
#include "daemon/loader/parameter_manifest.h"
#include "daemon/loader/tracing_manifest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

void DescribeManifest(const v1::Manifest& manifest, Program& program) {
  v1::DescribeReply* description = program.entry.mutable_description();
  description->mutable_summary()->set_interface(manifest.interface());
  description->mutable_summary()->set_description(manifest.description());
  v1::ProgramDescription* detail = description->mutable_detail();
  detail->set_name(manifest.name());
  detail->set_entry_point(manifest.program().function());
  detail->set_type(TypeName(manifest.program().type()));
  *detail->mutable_allowed_delivery() = manifest.program().delivery();
  detail->set_target(TargetOf(manifest.program()));
  detail->set_on_revoke(
      IsLoop(manifest) || IsTracing(manifest)
          ? "STOP"
          : v1::Manifest::OnRevoke_Name(manifest.program().on_revoke()));
  if (IsLoop(manifest)) *detail->mutable_loop() = DescribeLoop(manifest);
  if (IsTracing(manifest)) DescribeHooks(manifest, *detail);
  for (std::string& name : SessionMaps(manifest)) {
    *program.entry.add_session_map() = std::move(name);
  }
  // What a session shares, or a client chooses, nobody can load before.
  const uint32_t wanted =
      manifest.pool().has_ready() ? manifest.pool().ready() : kDefaultPoolReady;
  program.entry.set_pool_target(
      program.entry.session_map_size() > 0 || NeedsChoice(manifest) ? 0
                                                                    : wanted);
  *description->mutable_parameter() = manifest.parameter();
}

std::string_view BytesOf(const uint64_t& number) {
  return {reinterpret_cast<const char*>(&number), sizeof(number)};
}

// The digest of all that makes the program what it is.
std::string IdentityOf(std::string_view bytes,
                       absl::Span<const DropIn> drop_ins,
                       const Program& program) {
  // Their lengths, so that no two lists of parts are the same bytes.
  std::vector<uint64_t> lengths = {bytes.size(), drop_ins.size()};
  for (const DropIn& drop_in : drop_ins) {
    lengths.push_back(drop_in.bytes.size());
  }
  std::vector<std::string_view> parts;
  for (const uint64_t& length : lengths) parts.push_back(BytesOf(length));
  parts.push_back(bytes);
  for (const DropIn& drop_in : drop_ins) parts.push_back(drop_in.bytes);
  // The function is a variant's choice.
  parts.push_back(program.manifest->message().program().function());
  parts.push_back(program.object.view());
  return Sha256(parts);
}

// Reads the object and compares its digest.
absl::Status ReadObject(const SafeDirectory& folder, std::string_view bytes,
                        absl::Span<const DropIn> drop_ins,
                        const Mitigations& mitigations, Program& program) {
  const Manifest& manifest = *program.manifest;
  const std::string& name = manifest.message().object();
  const Place place = manifest.At("object");
  auto object = folder.Read(name, kMaxObjectBytes);
  if (absl::IsNotFound(object.status())) {
    return manifest.RefuseAt(place, v1::REASON_FILE_INVALID,
                             object.status().message());
  }
  if (!object.ok()) return object.status();
  program.object = *std::move(object);
  const std::string digest = Sha256({program.object.view()});
  if (digest.empty()) {
    return absl::InternalError("OpenSSL does not compute SHA-256");
  }
  program.entry.mutable_description()->set_digest(digest);
  program.entry.set_identity(IdentityOf(bytes, drop_ins, program));
  if (mitigations.digest_check && digest != manifest.message().sha256()) {
    return manifest.RefuseAt(manifest.At("sha256"), v1::REASON_DIGEST_MISMATCH,
                             absl::StrCat("the object's digest is ", digest));
  }
  if (!mitigations.read_once) {
    auto again = folder.Duplicate();
    if (!again.ok()) return again.status();
    program.folder = *std::move(again);
  }
  return absl::OkStatus();
}

std::string Irrevocable(const v1::Manifest& manifest, uint64_t bytes) {
  if (IsUnrevocable(manifest)) {
    return absl::StrCat(
        "Nothing stops the program, and nothing takes back its fd, its "
        "attachments or its maps (about ",
        bytes, " bytes), until the last who has them lets go of them.");
  }
  if (IsLoop(manifest)) {
    return absl::StrCat(
        "Revoking stops the loop at its next step and takes it off the ring. "
        "It takes back no handle: who holds a map keeps it and its memory "
        "(about ",
        bytes,
        " bytes). Requests under way complete; the ring stays restricted as "
        "the manifest says.");
  }
  if (IsTracing(manifest)) {
    return absl::StrCat(
        "From the moment of revoking the program sees nothing of the process "
        "any more. It takes back no handle: who holds a map keeps it, what was "
        "recorded until then and its memory (about ",
        bytes, " bytes).");
  }
  return absl::StrCat(
      "Revoking stops the program: from then on it answers ",
      v1::Manifest::OnRevoke_Name(manifest.program().on_revoke()),
      " to every packet. It takes back no fd and no attachment: who holds the "
      "program, a map or a ",
      TargetOf(manifest.program()) == v1::TARGET_TUN ? "device" : "socket",
      " with the program on it keeps them, what is in the maps and their "
      "memory (about ",
      bytes, " bytes), until the last is closed.");
}

// Puts the entry in front of a loop.
absl::Status Link(Program& program) {
  auto linked = LinkLoop(program.object.view());
  if (!linked.ok()) {
    return program.manifest->RefuseAt(program.manifest->At("object"),
                                      RefusalOf(linked.status()).reason(),
                                      linked.status().message());
  }
  program.linked = *std::move(linked);
  return absl::OkStatus();
}

// Compares the object with the manifest and describes what is in it.
absl::Status DescribeObject(Program& program) {
  const Manifest& manifest = *program.manifest;
  v1::DescribeReply* description = program.entry.mutable_description();
  if (IsLoop(manifest.message())) {
    if (auto status = Link(program); !status.ok()) return status;
  }
  auto object = OpenProgram(program.loadable(), manifest.message());
  if (!object.ok()) {
    return manifest.RefuseAt(manifest.At("object"), ReasonOf(object.status()),
                             object.status().message());
  }
  if (auto status = CheckObject(object->get(), manifest); !status.ok()) {
    return status;
  }
  auto interface = DescribeInterface(object->get(), manifest);
  if (!interface.ok()) return interface.status();
  description->set_interface_hash(interface->hash);
  description->set_header(Printable(interface->header));
  for (v1::Handle& handle :
       DescribeHandles(object->get(), manifest.message())) {
    *description->add_handle() = std::move(handle);
  }
  const uint64_t bytes = EstimateMapBytes(object->get());
  description->set_instance_bytes(bytes);
  description->set_irrevocable(Irrevocable(manifest.message(), bytes));
  return absl::OkStatus();
}

absl::Status InspectInto(const SafeDirectory& folder, std::string_view bytes,
                         absl::Span<const DropIn> drop_ins,
                         const Mitigations& mitigations, int variant,
                         Program& program) {
  auto manifest = Manifest::Parse(program.entry.description().file(),
                                  program.name(), bytes, drop_ins);
  if (!manifest.ok()) return manifest.status();
  program.manifest = *std::move(manifest);
  if (!program.manifest->message().variant().empty()) {
    program.manifest->Choose(variant);
  }
  DescribeManifest(program.manifest->message(), program);
  if (auto status = ReadObject(folder, bytes, drop_ins, mitigations, program);
      !status.ok()) {
    return status;
  }
  return DescribeObject(program);
}

std::unique_ptr<Program> Named(absl::string_view stem, std::string file) {
  auto program = std::make_unique<Program>();
  v1::DescribeReply* description = program->entry.mutable_description();
  // A file's name can be any bytes; a proto string is UTF-8.
  description->mutable_summary()->set_name(absl::CHexEscape(stem));
  description->set_file(std::move(file));
  return program;
}

// Whether it is the kernel that does not take the program, so that another
// variant may do better. A failure that may pass is no reason for a lesser one.
bool IsTheKernels(v1::Reason reason) {
  return reason == v1::REASON_VERIFIER || reason == v1::REASON_GATE_MISSING ||
         reason == v1::REASON_KERNEL_TOO_OLD ||
         reason == v1::REASON_LOAD_FAILED;
}

// Clients cannot know which of a program's variants they will meet.
void CheckInterface(const Program& first, Program& other) {
  const auto hash = [](const Program& program) {
    return program.entry.description().interface_hash();
  };
  if (hash(first) == hash(other)) return;
  const Manifest& manifest = *other.manifest;
  MarkUnavailable(
      manifest.RefuseAt(manifest.At("object"), v1::REASON_OBJECT_MISMATCH,
                        "this variant shows clients something else than the "
                        "first one: structures and maps must be equal"),
      other);
}

// Says in the one that counts what became of all.
void DescribeVariants(const std::vector<std::unique_ptr<Program>>& programs,
                      size_t chosen) {
  Program& program = *programs[chosen];
  v1::DescribeReply* description = program.entry.mutable_description();
  std::string refusals;
  for (size_t i = 0; i < programs.size(); ++i) {
    const v1::DescribeReply& other = programs[i]->entry.description();
    v1::VariantDescription* variant = description->add_variant();
    variant->set_name(
        program.manifest->message().variant(static_cast<int>(i)).name());
    variant->set_digest(other.digest());
    variant->set_tried(i <= chosen);
    variant->set_chosen(i == chosen && program.available());
    if (i != chosen) {
      program.other_identities.push_back(programs[i]->entry.identity());
    }
    if (!variant->tried() || variant->chosen()) continue;
    variant->set_reason(other.summary().reason());
    variant->set_refusal(other.refusal());
    absl::StrAppend(&refusals, refusals.empty() ? "" : "; ", variant->name(),
                    ": ", variant->refusal());
  }
  if (program.available()) return;
  description->set_refusal(
      absl::StrCat(IsTheKernels(description->summary().reason())
                       ? "no variant fits this kernel: "
                       : "the variants could not all be tried: ",
                   refusals));
}

// Whether the same bytes would fare the same another time.
bool IsSettled(const absl::Status& status) {
  return status.ok() || ReasonOf(status) == v1::REASON_VERIFIER ||
         ReasonOf(status) == v1::REASON_GATE_MISSING ||
         ReasonOf(status) == v1::REASON_KERNEL_TOO_OLD;
}

}  // namespace

absl::string_view StemOf(absl::string_view file) {
  return absl::StripSuffix(
      file, absl::string_view(kManifestSuffix.data(), kManifestSuffix.size()));
}

std::unique_ptr<Program> Unavailable(absl::string_view stem, std::string file,
                                     const absl::Status& why) {
  auto program = Named(stem, std::move(file));
  MarkUnavailable(why, *program);
  return program;
}

std::unique_ptr<Program> Inspect(const SafeDirectory& folder,
                                 const std::string& file,
                                 std::string_view bytes,
                                 const Mitigations& mitigations, int variant,
                                 absl::Span<const DropIn> drop_ins) {
  auto program = Named(StemOf(file), folder.PathOf(file));
  if (auto status =
          InspectInto(folder, bytes, drop_ins, mitigations, variant, *program);
      !status.ok()) {
    MarkUnavailable(status, *program);
  } else {
    program->entry.mutable_description()->mutable_summary()->set_available(
        true);
  }
  return program;
}

void MarkUnavailable(const absl::Status& why, Program& program) {
  v1::DescribeReply* description = program.entry.mutable_description();
  const v1::Refusal refusal = RefusalOf(why);
  description->mutable_summary()->set_available(false);
  description->mutable_summary()->set_reason(refusal.reason());
  description->set_refusal(refusal.message());
}

std::vector<std::unique_ptr<Program>> InspectVariants(
    const SafeDirectory& folder, const std::string& file,
    std::string_view bytes, const Mitigations& mitigations,
    absl::Span<const DropIn> drop_ins) {
  std::vector<std::unique_ptr<Program>> programs;
  programs.push_back(Inspect(folder, file, bytes, mitigations, 0, drop_ins));
  const Program& first = *programs[0];
  const int count =
      first.manifest == nullptr ? 0 : first.manifest->message().variant_size();
  for (int i = 1; i < count; ++i) {
    programs.push_back(Inspect(folder, file, bytes, mitigations, i, drop_ins));
    if (programs.back()->available() && first.available()) {
      CheckInterface(first, *programs.back());
    }
  }
  return programs;
}

absl::Status CheckLimits(const AdmissionLimits& limits, Program& program) {
  const Manifest& manifest = *program.manifest;
  const v1::Manifest::Program& declared = manifest.message().program();
  auto object = OpenProgram(program.loadable(), manifest.message());
  if (!object.ok()) {
    return manifest.RefuseAt(manifest.At("object"), ReasonOf(object.status()),
                             object.status().message());
  }
  const ObjectUses uses = FindUses(program, object->get());
  program.amounts = uses.amounts;
  std::set<std::string> unrevocable;
  if (IsUnrevocable(manifest.message())) {
    unrevocable.insert(program.name());
  }
  for (const absl::Status& status :
       {limits.CheckAll("program_type",
                        {v1::Manifest::Type_Name(declared.type())}),
        limits.CheckAll("map_type", uses.map_types),
        limits.CheckAll("helper", uses.helpers),
        limits.CheckAll("kfunc", uses.kfuncs),
        limits.CheckAmounts("program", uses.amounts),
        limits.CheckAll("unrevocable", unrevocable)}) {
    if (status.ok()) continue;
    return manifest.RefuseAt(manifest.At("object"), ReasonOf(status),
                             RefusalOf(status).message());
  }
  return absl::OkStatus();
}

bool MayAnotherDo(const Program& program) {
  return !program.available() &&
         IsTheKernels(program.entry.description().summary().reason());
}

absl::StatusOr<Admission> Admission::Create(const v1::KernelFacts& kernel,
                                            const Mitigations& mitigations) {
  auto trial = Trial::Create();
  if (!trial.ok()) return trial.status();
  return Admission(kernel, mitigations, *std::move(trial));
}

std::shared_ptr<const Program> Admission::Admit(
    const SafeDirectory& folder, const std::string& file,
    std::string_view bytes, absl::Span<const DropIn> drop_ins) {
  std::vector<std::unique_ptr<Program>> programs =
      InspectVariants(folder, file, bytes, mitigations_, drop_ins);
  for (std::unique_ptr<Program>& program : programs) {
    if (!program->available()) return std::move(program);
  }
  // Without one that fits it is the last, whose reason stands for all.
  size_t chosen = 0;
  Try(*programs[0], 0);
  while (MayAnotherDo(*programs[chosen]) && chosen + 1 < programs.size()) {
    ++chosen;
    Try(*programs[chosen], static_cast<int>(chosen));
  }
  if (programs[chosen]->available()) {
    CountTotal(limits_, total_, *programs[chosen]);
  }
  if (!programs[0]->manifest->message().variant().empty()) {
    DescribeVariants(programs, chosen);
  }
  return std::move(programs[chosen]);
}

void Admission::Try(Program& program, int variant) {
  if (auto status = CheckNeeds(*program.manifest, variant); !status.ok()) {
    return MarkUnavailable(status, program);
  }
  if (auto status = CheckLimits(limits_, program); !status.ok()) {
    return MarkUnavailable(status, program);
  }
  TrialResult unsettled;
  Finish(Verify(program, unsettled), program);
}

void Admission::SetLimits(AdmissionLimits limits) {
  limits_ = mitigations_.admission_limits ? std::move(limits)
                                          : AdmissionLimits::None();
  total_ = {};
}

void CountTotal(const AdmissionLimits& limits, Amounts& total,
                Program& program) {
  Amounts with_it = total;
  with_it += program.amounts;
  const absl::Status status = limits.CheckAmounts("total", with_it);
  if (status.ok()) {
    total = with_it;
    return;
  }
  const Manifest& manifest = *program.manifest;
  MarkUnavailable(manifest.RefuseAt(manifest.At("object"), ReasonOf(status),
                                    RefusalOf(status).message()),
                  program);
}

absl::Status Admission::CheckNeeds(const Manifest& manifest, int variant) {
  if (!HasNeeds(manifest, variant)) return absl::OkStatus();
  if (!kernel_types_.has_value()) {
    auto types = KernelTypes::OfThisKernel();
    if (!types.ok()) {
      return manifest.RefuseAt(
          manifest.text().Where("variant", variant, "need", 0),
          v1::REASON_INTERNAL, types.status().message());
    }
    kernel_types_.emplace(*std::move(types));
  }
  return daemon::CheckNeeds(manifest, variant, *kernel_types_);
}

const TrialResult& Admission::Verify(const Program& program,
                                     TrialResult& unsettled) {
  const std::string& identity = program.entry.identity();
  if (const auto known = known_.find(identity); known != known_.end()) {
    return known->second;
  }
  const v1::Manifest& manifest = program.manifest->message();
  if (IsLoop(manifest) && !has_loops_) {
    unsettled.status = Refuse(v1::REASON_KERNEL_TOO_OLD, kNoLoops);
    return unsettled;
  }
  ++trials_;
  unsettled = trial_.Run(program.loadable(), manifest);
  if (!IsSettled(unsettled.status)) return unsettled;
  return known_[identity] = std::move(unsettled);
}

void Admission::Finish(const TrialResult& result, Program& program) const {
  v1::DescribeReply* description = program.entry.mutable_description();
  if (!result.status.ok()) {
    const Manifest& manifest = *program.manifest;
    description->set_verifier_log(result.verifier_log);
    MarkUnavailable(manifest.RefuseAt(manifest.At("object"),
                                      RefusalOf(result.status).reason(),
                                      result.status.message()),
                    program);
    return;
  }
  v1::ProgramDescription* detail = description->mutable_detail();
  detail->set_runnable(result.runnable);
  if (result.runnable && preemptible_) {
    detail->set_fd_danger(absl::StrCat(
        "Whoever holds the program's fd can run it for as long as they like "
        "(BPF_PROG_TEST_RUN), and this kernel's preemption (",
        preemption_,
        ") lets such a run hold up the grace periods of the whole machine."));
  }
}

void Admission::KeepOnly(const std::set<std::string>& identities) {
  std::erase_if(known_, [&](const auto& known) {
    return !identities.contains(known.first);
  });
}

}  // namespace bpfgrant::daemon

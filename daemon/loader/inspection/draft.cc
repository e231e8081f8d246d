#include "daemon/loader/inspection/draft.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "daemon/loader/inspection/inspection.h"
#include "daemon/loader/inspection/line_diff.h"
#include "daemon/loader/inspection/manifest_text.h"
#include "daemon/loader/inspection/map_draft.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/tracing_object.h"
#include "google/protobuf/repeated_field.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

using Names = google::protobuf::RepeatedPtrField<std::string>;

// Of a program that libbpf calls so, if it can be granted.
std::optional<v1::Manifest::Type> TypeOf(const v1::InspectedProgram& program) {
  if (program.type() == "socket_filter") return v1::Manifest::SOCKET_FILTER;
  if (program.type() == "sk_reuseport") return v1::Manifest::SK_REUSEPORT;
  if (program.type() == kLoopType) return v1::Manifest::IO_URING_LOOP;
  if (program.type() == "tracing" && program.attach() == "trace_raw_tp") {
    return v1::Manifest::TRACING;
  }
  return std::nullopt;
}

std::string Named(const v1::InspectedProgram& program) {
  return absl::StrCat(program.name(), " (", program.type(), ")");
}

// Those that one manifest grants: one, or all that trace.
using Programs = std::vector<const v1::InspectedProgram*>;

bool IsGrantable(const v1::InspectedProgram& program) {
  return program.name() != kExecutedProgram && TypeOf(program).has_value();
}

absl::StatusOr<Programs> FindNamed(const v1::Inspection& inspection,
                                   const std::string& function) {
  for (const v1::InspectedProgram& program : inspection.program()) {
    if (program.name() != function) continue;
    if (IsGrantable(program)) return Programs{&program};
    return Refuse(
        v1::REASON_OBJECT_MISMATCH,
        absl::StrCat(Named(program), " is of a type that cannot be granted"));
  }
  return Refuse(v1::REASON_OBJECT_MISMATCH,
                absl::StrCat("the object has no program '", function, "'"));
}

absl::StatusOr<Programs> FindPrograms(const v1::Inspection& inspection,
                                      const std::string& function) {
  Programs found;
  std::vector<std::string> all;
  for (const v1::InspectedProgram& program : inspection.program()) {
    all.push_back(Named(program));
    if (IsGrantable(program)) found.push_back(&program);
  }
  const bool all_trace = std::ranges::all_of(found, [](const auto* program) {
    return TypeOf(*program) == v1::Manifest::TRACING;
  });
  if (!found.empty() && all_trace && function.empty()) return found;
  if (!function.empty()) return FindNamed(inspection, function);
  if (found.size() == 1) return found;
  if (found.empty()) {
    return Refuse(
        v1::REASON_OBJECT_MISMATCH,
        absl::StrCat("there is nothing in it that can be granted, which is "
                     "socket_filter, sk_reuseport, tracing by tp_btf, and an "
                     "io_uring loop (a function '",
                     kLoopStep, "'); it has: ",
                     all.empty() ? "no program" : absl::StrJoin(all, ", ")));
  }
  return Refuse(v1::REASON_OBJECT_MISMATCH,
                absl::StrCat("which of its programs is meant? Name one with "
                             "--function: ",
                             absl::StrJoin(all, ", ")));
}

absl::Status CheckPrograms(const v1::Inspection& inspection,
                           const Programs& programs) {
  if (!inspection.btf()) {
    return Refuse(v1::REASON_OBJECT_MISMATCH,
                  "the object has no BTF; compile it with -g");
  }
  for (const v1::InspectedProgram* program : programs) {
    if (!IsIdentifier(program->name())) {
      return Refuse(
          v1::REASON_OBJECT_MISMATCH,
          absl::StrCat("no manifest can name the program ", Named(*program)));
    }
    if (program->gate()) continue;
    return Refuse(v1::REASON_GATE_MISSING,
                  absl::StrCat("program ", Named(*program),
                               " consults no gate: nothing could take it back. "
                               "Include <bpfgrant/gate.bpf.h> and begin with "
                               "bpfgrant_gate_open()"));
  }
  return absl::OkStatus();
}

class Drafter {
 public:
  Drafter(const v1::Inspection& inspection, const DraftRequest& request,
          Programs programs)
      : inspection_(inspection),
        request_(request),
        programs_(std::move(programs)),
        type_(*TypeOf(*programs_[0])) {}

  absl::StatusOr<v1::Draft> Run() {
    if (request_.known == nullptr) {
      Begin();
    } else if (auto status = GoOn(); !status.ok()) {
      return status;
    }
    manifest_.set_object(request_.object);
    manifest_.set_sha256(inspection_.sha256());
    if (type_ == v1::Manifest::TRACING) {
      DraftHooks();
    } else {
      manifest_.mutable_program()->set_function(programs_[0]->name());
    }
    const bool traces = type_ == v1::Manifest::TRACING;
    if (auto status = DraftMaps(inspection_, programs_[0]->name(), traces,
                                manifest_, remarks_);
        !status.ok()) {
      return status;
    }
    AddSummary();
    return Finish();
  }

 private:
  std::vector<std::string>& Before(const std::string& field) {
    return remarks_[{field, 0}].before;
  }
  std::vector<std::string>& Inside(const std::string& field) {
    return remarks_[{field, 0}].inside;
  }

  // Nothing is known yet.
  void Begin() {
    manifest_.set_name(request_.name);
    manifest_.set_interface(absl::StrCat(request_.name, "/1"));
    v1::Manifest::Program& program = *manifest_.mutable_program();
    program.set_type(type_);
    switch (type_) {
      case v1::Manifest::IO_URING_LOOP:
        program.add_delivery(v1::DELIVERY_RING);
        return BeginLoop();
      case v1::Manifest::TRACING:
        program.add_delivery(v1::DELIVERY_PROCESS);
        return;
      default:
        program.add_delivery(v1::DELIVERY_ATTACH);
        return BeginFilter();
    }
  }

  void BeginFilter() {
    std::vector<std::string>& inside = Inside("program");
    inside.push_back(
        "# Besides, delivery: DELIVERY_PROGRAM hands out its fd, whose holder "
        "can");
    inside.push_back(absl::StrCat("# ", programs_[0]->holder(), "."));
    if (type_ == v1::Manifest::SOCKET_FILTER) {
      inside.push_back("# For the queues of a tun device, target: TARGET_TUN.");
    }
    inside.push_back(
        "# What a revoked one does with each packet: PASS leaves open, DROP "
        "cuts off.");
    inside.push_back(absl::StrCat("on_revoke: ", kDecide));
  }

  void BeginLoop() {
    // So that there is something to write the rest into.
    manifest_.mutable_loop();
    std::vector<std::string>& inside = Inside("loop");
    inside.push_back("# The ring that the loop was written for.");
    inside.push_back(absl::StrCat("sq_entries: ", kDecide));
    inside.push_back(absl::StrCat("cq_entries: ", kDecide));
    inside.push_back("# What it wants of memory, in whole pages; 0: none.");
    inside.push_back(absl::StrCat("memory_bytes: ", kDecide));
    inside.push_back(
        "# All that the ring can ever do, a line each. The client can submit "
        "these by");
    inside.push_back("# itself, too.");
    inside.push_back(absl::StrCat("opcode: ", kDecide));
  }

  // From what a human decided before.
  absl::Status GoOn() {
    manifest_ = request_.known->message();
    const std::string& file = request_.known->text().name();
    if (!manifest_.variant().empty()) {
      return Refuse(
          v1::REASON_INVALID_ARGUMENT,
          absl::StrCat(file,
                       " has variants: write the object's digest into the one "
                       "that it is: ",
                       inspection_.sha256()));
    }
    if (manifest_.program().type() != type_) {
      return Refuse(
          v1::REASON_OBJECT_MISMATCH,
          absl::StrCat(file, " approves a program of another type, ",
                       v1::Manifest::Type_Name(manifest_.program().type()),
                       "; a new --name is needed"));
    }
    return absl::OkStatus();
  }

  void DraftHooks() {
    manifest_.clear_hook();
    for (const v1::InspectedProgram* program : programs_) {
      v1::Manifest::Hook& hook = *manifest_.add_hook();
      hook.set_function(program->name());
      const std::vector<std::string> parts =
          absl::StrSplit(program->section(), absl::MaxSplits('/', 1));
      if (parts.size() == 2) hook.set_tracepoint(parts[1]);
    }
  }

  static void AddCalls(const v1::InspectedProgram& program, const char* what,
                       const Names& names, std::vector<std::string>& lines) {
    if (names.empty()) return;
    lines.push_back(absl::StrCat(program.name(), " calls the ", what, " ",
                                 absl::StrJoin(names, " "), "."));
  }

  void AddSummary() {
    std::vector<std::string>& before = Before("name");
    before.push_back(absl::StrCat("Approves ", request_.object,
                                  ", the one with this digest and no other. A "
                                  "draft: look at each line."));
    for (const v1::InspectedProgram* program : programs_) {
      AddCalls(*program, "helpers", program->helper(), before);
      AddCalls(*program, "kernel functions", program->kfunc(), before);
    }
    for (const v1::Danger& danger : inspection_.danger()) {
      before.push_back(absl::StrCat("Danger: ", danger.where(),
                                    danger.where().empty() ? "" : ": ",
                                    danger.what(), ": ", danger.why(), "."));
    }
  }

  v1::Draft Finish() const {
    v1::Draft draft;
    draft.set_file(absl::StrCat(request_.name, std::string(kManifestSuffix)));
    draft.set_text(WriteManifest(manifest_, remarks_));
    if (request_.known != nullptr) {
      draft.set_known(request_.known->text().name());
      draft.set_diff(DiffLines(WriteManifest(request_.known->message(), {}),
                               WriteManifest(manifest_, {})));
    }
    int number = 0;
    const std::vector<std::string> lines = absl::StrSplit(draft.text(), '\n');
    for (const std::string& line : lines) {
      ++number;
      if (!line.ends_with(kDecide)) continue;
      draft.add_decision(absl::StrCat(
          number, ": ", std::string(absl::StripAsciiWhitespace(line))));
    }
    return draft;
  }

  const v1::Inspection& inspection_;
  const DraftRequest& request_;
  const Programs programs_;
  const v1::Manifest::Type type_;
  v1::Manifest manifest_;
  AllRemarks remarks_;
};

}  // namespace

absl::StatusOr<v1::Draft> WriteDraft(const v1::Inspection& inspection,
                                     const DraftRequest& request) {
  if (!IsName(request.name)) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  absl::StrCat("'", request.name,
                               "' can be no program's name, which matches "
                               "[a-z][a-z0-9_]{0,62}; give one with --name"));
  }
  if (std::ranges::any_of(request.object, absl::ascii_iscntrl)) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  "no manifest can name a file with control characters");
  }
  auto programs = FindPrograms(inspection, request.function);
  if (!programs.ok()) return programs.status();
  if (auto status = CheckPrograms(inspection, *programs); !status.ok()) {
    return status;
  }
  return Drafter(inspection, request, *std::move(programs)).Run();
}

}  // namespace bpfgrant::daemon

#include "client/bpfgrantctl/findings.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::ctl {
namespace {

void JudgeMitigations(const v1::StatusReply& status, Findings& findings) {
  if (status.mitigations_off().empty()) {
    findings.push_back({Level::kFine, "mitigations", "all are on", ""});
    return;
  }
  findings.push_back({Level::kWrong, "mitigations",
                      absl::StrCat("!!! MITIGATIONS ARE OFF: ",
                                   absl::AsciiStrToUpper(absl::StrJoin(
                                       status.mitigations_off(), ", ")),
                                   " !!! This daemon protects nobody"),
                      "Stop it at once: it is a build for tests. Install and "
                      "start bpfgrantd."});
}

void JudgeCatalog(const v1::StatusReply& status, bool administrator,
                  Findings& findings) {
  if (status.programs() == 0) {
    findings.push_back({Level::kWrong, "catalog", "no program is available",
                        "Install programs into a catalog directory and run "
                        "`bpfgrantctl reload`."});
  } else {
    findings.push_back({Level::kFine, "catalog",
                        absl::StrCat(status.programs(), " available"), ""});
  }
  // An administrator is told of each by itself.
  if (status.unavailable() > 0 && !administrator) {
    findings.push_back(
        {Level::kWrong, "catalog",
         absl::StrCat(status.unavailable(), " refused at admission"),
         "Run `bpfgrantctl doctor` as an administrator to see why."});
  }
}

void JudgePolicy(const v1::StatusReply& status, Findings& findings) {
  if (status.rules() == 0) {
    findings.push_back({Level::kWrong, "policy",
                        "there is no rule: nobody may have anything",
                        "Write a rule into a policy directory and run "
                        "`bpfgrantctl reload`."});
  } else {
    findings.push_back(
        {Level::kFine, "policy", absl::StrCat(status.rules(), " rules"), ""});
  }
  // Only administrators are told.
  if (!status.last_reload().empty() && status.last_reload() != "ok") {
    findings.push_back(
        {Level::kWrong, "policy",
         absl::StrCat("the last reload was rejected: ", status.last_reload()),
         std::string(NextStep(v1::REASON_RELOAD_REJECTED))});
  }
}

void JudgeGates(const v1::StatusReply& status, Findings& findings) {
  const uint64_t used = status.gate_slots_used();
  const uint64_t slots = status.gate_slots();
  const std::string what = absl::StrCat(used, " of ", slots, " in use");
  if (used >= slots) {
    findings.push_back({Level::kWrong, "gates", what,
                        "No grant can be made: see with `bpfgrantctl grants` "
                        "who holds them, and end some with `bpfgrantctl "
                        "revoke`."});
  } else if (used * 10 >= slots * 9) {
    findings.push_back({Level::kNote, "gates", what,
                        "See with `bpfgrantctl grants` who holds them."});
  } else {
    findings.push_back({Level::kFine, "gates", what, ""});
  }
}

void JudgeAudit(const v1::StatusReply& status, Findings& findings) {
  if (status.audit() != "journal") {
    findings.push_back({Level::kNote, "audit",
                        absl::StrCat("the audit trail goes ", status.audit()),
                        "Run systemd-journald: who got what is on record "
                        "nowhere."});
  } else if (status.audit_lost() > 0) {
    findings.push_back(
        {Level::kNote, "audit",
         absl::StrCat(status.audit_lost(),
                      " records are lost: the journal was too slow"),
         "See whether the disk of /var/log/journal is full or slow."});
  } else {
    findings.push_back(
        {Level::kFine, "audit", "the journal has it: bpfgrantctl audit", ""});
  }
}

bool Allows(const v1::DescribeReply& program, v1::Delivery delivery) {
  const auto& allowed = program.detail().allowed_delivery();
  return std::find(allowed.begin(), allowed.end(), delivery) != allowed.end();
}

std::string DeliveryInForce(const v1::DescribeReply& program,
                            bool danger_ignored) {
  if (program.detail().has_loop()) {
    return "RING: attached to the client's own ring, restricted before";
  }
  if (Allows(program, v1::DELIVERY_PROCESS)) {
    return "PROCESS: attached once for the machine, serves the client's "
           "process";
  }
  const bool dangerous = !program.detail().fd_danger().empty();
  if (!Allows(program, v1::DELIVERY_PROGRAM)) {
    return "ATTACH: the manifest lists nothing else";
  }
  if (!dangerous) return "PROGRAM: the fd is harmless on this kernel";
  if (danger_ignored) {
    return "PROGRAM for everyone, dangerous as it is: that mitigation is off";
  }
  return absl::StrCat(Allows(program, v1::DELIVERY_ATTACH)
                          ? "ATTACH; PROGRAM under rules with `trusted: true`: "
                          : "PROGRAM under rules with `trusted: true`, else "
                            "nothing: ",
                      program.detail().fd_danger());
}

}  // namespace

void JudgeDaemon(const v1::StatusReply& status, bool administrator,
                 Findings& findings) {
  if (status.version() != BPFGRANT_VERSION) {
    findings.push_back(
        {Level::kNote, "version",
         absl::StrCat("the daemon is ", status.version(), ", this tool ",
                      BPFGRANT_VERSION),
         "Restart bpfgrantd if it was updated: grants end with it."});
  }
  JudgeMitigations(status, findings);
  findings.push_back(
      {status.kernel().peer_pidfd() ? Level::kFine : Level::kNote, "identity",
       absl::StrCat("peers are named by ", status.identity()),
       status.kernel().peer_pidfd()
           ? ""
           : "Nothing to mend: a kernel from 6.5 on spares each connection "
             "one round trip."});
  JudgePolicy(status, findings);
  JudgeGates(status, findings);
  JudgeCatalog(status, administrator, findings);
  JudgeAudit(status, findings);
}

void JudgeKernel(const v1::KernelFacts& kernel, Findings& findings) {
  findings.push_back({Level::kFine, "kernel", kernel.release(), ""});
  const std::string model =
      absl::StrCat("preemption is ", kernel.preemption(),
                   " (read from: ", kernel.preemption_evidence(), ")");
  if (kernel.preemptible()) {
    findings.push_back(
        {Level::kNote, "preemption",
         absl::StrCat(model,
                      ": whoever may run a program at will could hold "
                      "up the whole machine, so fds of such programs "
                      "go to trusted callers only"),
         "Nothing to mend: the daemon attaches to the others' sockets and "
         "devices. "
         "`trusted: true` in a rule lifts this for whom it is for."});
  } else {
    findings.push_back({Level::kFine, "preemption",
                        absl::StrCat(model, ": program fds may be handed out"),
                        ""});
  }
  findings.push_back(
      {kernel.socket_uring_setsockopt() ? Level::kFine : Level::kNote, "ring",
       kernel.socket_uring_setsockopt()
           ? "clients can attach program fds through their io_uring"
           : "this kernel has no setsockopt(2) through an io_uring",
       kernel.socket_uring_setsockopt()
           ? ""
           : "Nothing to mend: clients attach with setsockopt(2) itself."});
  findings.push_back(
      {kernel.io_uring_loops() ? Level::kFine : Level::kNote, "loops",
       kernel.io_uring_loops()
           ? "programs can drive an io_uring in this kernel"
           : "this kernel has no io_uring loops (struct io_uring_bpf_ops, "
             "Linux 7.1 with CONFIG_IO_URING_BPF_OPS)",
       kernel.io_uring_loops()
           ? ""
           : "Nothing to mend: clients that allow it run such programs in "
             "their own process (`Loop::place_reason` says so); the others "
             "are refused."});
  JudgeSettings(kernel.unprivileged_bpf_disabled(), kernel.io_uring_disabled(),
                findings);
}

void JudgeSettings(int32_t unprivileged_bpf_disabled, int32_t io_uring_disabled,
                   Findings& findings) {
  constexpr char kBpf[] = "kernel.unprivileged_bpf_disabled";
  if (unprivileged_bpf_disabled == 0) {
    findings.push_back(
        {Level::kWrong, "bpf",
         absl::StrCat(kBpf,
                      " is 0: everybody may load programs of their own, "
                      "approved by nobody"),
         absl::StrCat("Set it: sysctl -w ", kBpf,
                      "=2, and likewise in /etc/sysctl.d.")});
  } else if (unprivileged_bpf_disabled < 0) {
    findings.push_back({Level::kNote, "bpf",
                        absl::StrCat(kBpf, " is not known"),
                        absl::StrCat("See that it is not 0: sysctl ", kBpf)});
  } else {
    findings.push_back({Level::kFine, "bpf",
                        absl::StrCat(kBpf, " is ", unprivileged_bpf_disabled),
                        ""});
  }
  constexpr char kRing[] = "kernel.io_uring_disabled";
  if (io_uring_disabled > 0) {
    findings.push_back(
        {Level::kNote, "io_uring",
         absl::StrCat(kRing, " is ", io_uring_disabled, ": ",
                      io_uring_disabled == 1
                          ? "for the group kernel.io_uring_group only"
                          : "nobody can use io_uring"),
         "Nothing to mend for those who attach with setsockopt(2); for the "
         "others set it to 0."});
  } else {
    findings.push_back({Level::kFine, "io_uring",
                        io_uring_disabled == 0
                            ? absl::StrCat(kRing, " is 0")
                            : absl::StrCat(kRing, " is not there: allowed"),
                        ""});
  }
}

void JudgeProgram(const v1::DescribeReply& program, bool danger_ignored,
                  Findings& findings) {
  const v1::ProgramSummary& summary = program.summary();
  if (program.detail().has_loop() &&
      summary.reason() == v1::REASON_KERNEL_TOO_OLD) {
    // Said of the kernel already, and nothing that anybody did wrong.
    findings.push_back({Level::kNote, summary.name(),
                        "not in this kernel: it is an io_uring loop",
                        "Nothing to mend: its native twin runs in the client's "
                        "process."});
    return;
  }
  if (!summary.available()) {
    const std::string next(NextStep(summary.reason()));
    findings.push_back(
        {Level::kWrong, summary.name(),
         absl::StrCat("not available (", ReasonName(summary.reason()),
                      "): ", program.refusal()),
         next.empty()
             ? absl::StrCat("See `bpfgrantctl describe ", summary.name(), "`.")
             : next});
    return;
  }
  findings.push_back({Level::kFine, summary.name(),
                      DeliveryInForce(program, danger_ignored), ""});
}

int32_t ReadSetting(const std::string& name) {
  std::ifstream file("/proc/sys/kernel/" + name);
  int32_t value = -1;
  return file >> value ? value : -1;
}

}  // namespace bpfgrant::ctl

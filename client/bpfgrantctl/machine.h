// What of this machine, besides the daemon, helps a client or stands in its
// way: read here, judged in findings.

#ifndef CLIENT_BPFGRANTCTL_MACHINE_H_
#define CLIENT_BPFGRANTCTL_MACHINE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "client/bpfgrantctl/findings.h"

namespace bpfgrant::ctl {

// Of whoever calls. What cannot be read is empty.
struct Machine {
  // /sys/kernel/security/lockdown: "none", "integrity" or "confidentiality".
  std::string lockdown;
  std::string modules;  // /sys/kernel/security/lsm
  bool selinux_enforces = false;
  bool kernel_btf = false;       // /sys/kernel/btf/vmlinux is there
  bool bpf_filesystem = false;   // on /sys/fs/bpf
  std::optional<int32_t> jit;    // net.core.bpf_jit_enable
  std::optional<int32_t> stats;  // kernel.bpf_stats_enabled
  bool seccomp = false;          // a filter of the caller's
  int ring_error = 0;            // of io_uring_setup(2); 0: it works
  uint64_t open_files = 0;       // RLIMIT_NOFILE
  uint64_t locked_bytes = 0;     // RLIMIT_MEMLOCK
};

// `root` stands before each path: "" but in tests.
Machine ReadMachine(const std::string& root = "");

void JudgeMachine(const Machine& machine, Findings& findings);

// What is at the path of the daemon's other socket, which lies beside
// `broker_socket`.
void JudgeControlSocket(const std::string& broker_socket, Findings& findings);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_MACHINE_H_

// What doctor makes of the facts: each finding with what to do about it.
//
// Judges only; asks neither the daemon nor, but for ReadSetting, the kernel.

#ifndef CLIENT_BPFGRANTCTL_FINDINGS_H_
#define CLIENT_BPFGRANTCTL_FINDINGS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant::ctl {

enum class Level {
  kFine,
  kNote,   // works as meant, and is worth knowing
  kWrong,  // to be mended
};

struct Finding {
  Level level;
  std::string topic;
  std::string what;
  std::string advice;  // empty for what is fine
};

using Findings = std::vector<Finding>;

// The daemon's own state, and which release of this tool asks it.
void JudgeDaemon(const v1::StatusReply& status, bool administrator,
                 Findings& findings);

// The kernel under it, and what follows for program fds.
void JudgeKernel(const v1::KernelFacts& kernel, Findings& findings);

// Two settings that can be read without a daemon, too; -1: not there.
void JudgeSettings(int32_t unprivileged_bpf_disabled, int32_t io_uring_disabled,
                   Findings& findings);

// One program: whether it can be had, and which delivery is in force.
// `danger_ignored`: the daemon runs without the check of dangerous fds.
void JudgeProgram(const v1::DescribeReply& program, bool danger_ignored,
                  Findings& findings);

// /proc/sys/kernel/<name>; -1 if it cannot be read.
int32_t ReadSetting(const std::string& name);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_FINDINGS_H_

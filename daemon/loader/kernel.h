// What the kernel underneath is, by evidence: files it shows and calls it
// answers. Never by its version number.

#ifndef DAEMON_LOADER_KERNEL_H_
#define DAEMON_LOADER_KERNEL_H_

#include <string>

#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant::daemon {

struct Preemption {
  bool preemptible = true;  // in doubt, yes
  std::string model;        // "none", "voluntary", "full", "lazy", "rt", ...
  std::string evidence;     // where that was read
};

// How tasks in the kernel are preempted. `root` stands before the names of all
// files read ("" for the real ones); `release` and `version` are uname(2)'s.
//
// Asked in this order: the scheduler's own file in debugfs; uname's version;
// with PREEMPT_DYNAMIC in it, the command line and the kernel's configuration.
// What cannot be told is "unknown", and counts as preemptible.
Preemption ReadPreemption(const std::string& root, const std::string& release,
                          const std::string& version);

// A setting below /proc/sys/kernel; -1 if there is none or it is no number.
int ReadKernelSetting(const std::string& root, const std::string& name);

// Whether SO_PEERPIDFD works; by asking it of a socket pair.
bool HasPeerPidfd();

// Whether a ring can set socket options (SOCKET_URING_OP_SETSOCKOPT); by doing
// it. False, too, where this process may not have rings.
bool HasSocketUringSetsockopt();

// All of it, of the running kernel.
v1::KernelFacts ReadKernelFacts();

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_KERNEL_H_

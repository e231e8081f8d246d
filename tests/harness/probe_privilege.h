// What a process may do: the assertion that a client in a test is nobody, and
// the reason why a test cannot run here.

#ifndef TESTS_HARNESS_PROBE_PRIVILEGE_H_
#define TESTS_HARNESS_PROBE_PRIVILEGE_H_

#include <initializer_list>
#include <string>

namespace bpfgrant::test {

inline constexpr int kNotUnprivileged = 99;  // exit code

// The first statement of every client that a test executes. Returns only if
// this process has real, effective and saved uid and gid 65534, no
// supplementary group, and no capability in any set; otherwise prints which one
// it is and exits with kNotUnprivileged.
void AssertUnprivileged();

// What of that does not hold for the text of a /proc/PID/status; empty: all
// does.
std::string PrivilegeIn(const std::string& status);

// Why this process cannot do what needs `capabilities` (CAP_BPF and so on, of
// linux/capability.h): "privilege: CAP_BPF is missing". Empty if it can.
std::string MissingPrivilege(std::initializer_list<int> capabilities);

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_PROBE_PRIVILEGE_H_

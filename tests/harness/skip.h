// Reasons to skip a test, in the words that ./check reads: a skip is accepted
// only where the machine indeed lacks what it names.

#ifndef TESTS_HARNESS_SKIP_H_
#define TESTS_HARNESS_SKIP_H_

#include <linux/capability.h>

#include <string>

#include "gtest/gtest.h"
#include "tests/harness/probe_privilege.h"

// Skips the test unless this process has all of these capabilities: CAP_BPF and
// so on. In SetUp or in the test itself.
#define BPFGRANT_REQUIRE_CAPABILITIES(...)                   \
  if (const std::string missing =                            \
          ::bpfgrant::test::MissingPrivilege({__VA_ARGS__}); \
      missing.empty()) {                                     \
  } else /* NOLINT: the stream goes on behind the macro */   \
    GTEST_SKIP() << missing

// Skips the test if this kernel has not got `what`: "kernel: no SO_PEERPIDFD".
#define BPFGRANT_REQUIRE_KERNEL(has, what) \
  if (has) {                               \
  } else /* NOLINT: as above */            \
    GTEST_SKIP() << "kernel: no " << what

namespace bpfgrant::test {

// A test that loads BPF programs and looks at what the kernel holds.
class PrivilegedTest : public ::testing::Test {
 protected:
  void SetUp() override {
    BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN,
                                  CAP_SYS_ADMIN);
  }
};

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_SKIP_H_

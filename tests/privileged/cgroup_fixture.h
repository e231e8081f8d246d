// A daemon with a rule about a unit, a slice or a cgroup, and a tree of cgroups
// in which clients are put.

#ifndef TESTS_PRIVILEGED_CGROUP_FIXTURE_H_
#define TESTS_PRIVILEGED_CGROUP_FIXTURE_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "tests/privileged/cgroup_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {

class CgroupTest : public ClientTest {
 protected:
  void SetUp() override {
    ClientTest::SetUp();
    if (IsSkipped()) return;
    if (!tree_.usable()) GTEST_SKIP() << "kernel: no cgroup v2 is mounted";
  }
  // A daemon whose one rule allows who meets `condition`, in which NAME is this
  // test's name of a unit, slice or cgroup.
  void StartFor(const std::string& condition,
                const std::vector<std::string>& without = {}) {
    DaemonOptions options;
    options.policy = absl::StrCat(
        "rule { name: 'r' effect: ALLOW program: '*' quota { grants: 64 }\n"
        "  trusted: true ",
        Named(condition), " }\n");
    options.programs = {"packet_sampler"};
    options.without = without;
    ASSERT_NO_FATAL_FAILURE(Start(options));
  }
  std::string Named(const std::string& text) const {
    return absl::StrReplaceAll(text, {{"NAME", tree_.name()}});
  }

  // Before any client, which runs in it.
  CgroupTree tree_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_CGROUP_FIXTURE_H_

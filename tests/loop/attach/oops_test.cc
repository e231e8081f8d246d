// The twin of the two tests in hazard_test.cc in which a task without an
// io_uring of its own enters a loop: with the check off, the kernel follows a
// null pointer (io_submit_sqes). The thread dies with the ring's lock held, so
// its process and the daemon's child never end: a kernel of its own is needed.

#include <sys/klog.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <string>

#include "absl/strings/match.h"
#include "tests/harness/process_tree.h"
#include "tests/loop/attach/attach_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

using OopsTest = AttachTest;

// ./check looks at the kernel's log; what is between these lines is expected.
void SayToKernelLog(const std::string& line) {
  std::ofstream("/dev/kmsg") << "bpfgrant-test: " << line << std::endl;
}

std::string KernelLog() {
  constexpr int kReadAll = 3;
  std::string log(1 << 20, '\0');
  const int length =
      klogctl(kReadAll, log.data(), static_cast<int>(log.size()));
  log.resize(length < 0 ? 0 : length);
  return log;
}

TEST_F(OopsTest, WithoutTheTaskCheckTheKernelOopses) {
  BPFGRANT_START("loop_task_check");
  LeaveIt();
  Nobody client;
  Connect(client);
  const std::string fd = MakeRing(client);
  ASSERT_EQ(client.Ask("job 0 0 1"), "ok");
  ASSERT_EQ(client.Ask("put 0 0 nop"), "ok");
  ASSERT_THAT(client.Ask("attach-ring puppet " + fd), StartsWith("ok"));
  SayToKernelLog("expect-oops");
  client.Tell("enter-in-thread 0");
  std::string log;
  WaitUntil(
      [&log] {
        log = KernelLog();
        log.erase(0, log.rfind("bpfgrant-test: expect-oops"));
        return absl::StrContains(log, "io_submit_sqes");
      },
      kPatience);
  SayToKernelLog("end-expect-oops");
  EXPECT_THAT(log, HasSubstr("NULL pointer dereference"));
  EXPECT_THAT(log, HasSubstr("io_submit_sqes"));
  // Nothing here can be brought to an end any more: neither waited for nor torn
  // down.
  const bool failed = HasFailure();
  std::cout << (failed ? "[  FAILED  ] " : "[       OK ] ")
            << "OopsTest.WithoutTheTaskCheckTheKernelOopses" << std::endl;
  _exit(failed ? 1 : 0);
}

}  // namespace
}  // namespace bpfgrant::test

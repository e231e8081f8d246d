// The harness is what other tests stand on, so it is tested itself.

#include <linux/bpf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/kernel_objects.h"
#include "tests/harness/open_fds.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/skip.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

using HarnessTest = PrivilegedTest;

TEST_F(HarnessTest, ChildIsNobody) {
  const Outcome outcome = RunUnprivileged(PROBE_PATH, {"assert"});
  EXPECT_EQ(outcome.exit_code, 7) << outcome.Describe();
}

TEST_F(HarnessTest, ClientWithPrivilegeRefusesToRun) {
  const int status = std::system(PROBE_PATH " assert 2>/dev/null");
  EXPECT_EQ(WEXITSTATUS(status), kNotUnprivileged);
}

TEST_F(HarnessTest, ClientWithOtherIdsRefusesToRun) {
  UnprivilegedOptions options;
  options.uid = 1234;
  const Outcome outcome = RunUnprivileged(PROBE_PATH, {"assert"}, options);
  EXPECT_EQ(outcome.exit_code, kNotUnprivileged) << outcome.Describe();
  EXPECT_THAT(outcome.errors, HasSubstr("Uid is '1234 1234 1234 1234'"));
}

TEST(PrivilegeInTest, EachSetCounts) {
  const std::string clean =
      "Uid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\n"
      "Groups:\t \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
      "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"
      "CapAmb:\t0000000000000000\n";
  EXPECT_EQ(PrivilegeIn(clean), "");
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    std::string dirty = clean;
    dirty.replace(dirty.find(set) + 8, 16, "0000008000000000");
    EXPECT_THAT(PrivilegeIn(dirty), HasSubstr(set));
  }
  std::string grouped = clean;
  grouped.replace(grouped.find("Groups:\t ") + 8, 1, "4 ");
  EXPECT_THAT(PrivilegeIn(grouped), HasSubstr("Groups"));
  EXPECT_THAT(PrivilegeIn(""), Not(""));
}

TEST_F(HarnessTest, ChildHasNoFdsButThoseGiven) {
  // Not close-on-exec: the kind that leaks.
  const UniqueFd leak(open("/dev/null", O_RDONLY));
  const UniqueFd first(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const UniqueFd second(open("/dev/null", O_RDONLY | O_CLOEXEC));
  UnprivilegedOptions options;
  // Each at the other's number.
  options.fds = {{first.get(), second.get()}, {second.get(), first.get()}};
  const Outcome outcome = RunUnprivileged(PROBE_PATH, {"fds"}, options);
  EXPECT_EQ(outcome.output, "0 1 2 " + std::to_string(first.get()) + " " +
                                std::to_string(second.get()) + " ")
      << outcome.Describe();
}

TEST_F(HarnessTest, ChildHasNoEnvironmentButThatGiven) {
  UnprivilegedOptions options;
  options.environment = {"LETTER=b"};
  const Outcome outcome = RunUnprivileged(PROBE_PATH, {"environment"}, options);
  EXPECT_EQ(outcome.output, "LETTER=b\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
}

TEST_F(HarnessTest, ConversationWithChild) {
  auto child = UnprivilegedProcess::Spawn(PROBE_PATH, {"echo"});
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_TRUE(child->WaitForLine("ready").ok());
  EXPECT_TRUE(child->WriteLine("one").ok());
  EXPECT_EQ(child->WaitForLine("said").value_or(""), "said one");
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      child->WaitForLine("never", milliseconds(50)).status()));
  child->CloseInput();
  EXPECT_TRUE(absl::IsOutOfRange(child->WaitForLine("never").status()));
  EXPECT_EQ(child->Wait().exit_code, 7);
}

TEST_F(HarnessTest, MuchOutputIsTakenFromBothStreams) {
  const Outcome outcome = RunUnprivileged(PROBE_PATH, {"shout"});
  EXPECT_EQ(outcome.exit_code, 7);
  EXPECT_EQ(outcome.output.size(), 300'000u);
  EXPECT_EQ(outcome.errors.size(), 300'000u);
}

TEST_F(HarnessTest, ChildIsKilledWhenItsTimeIsOver) {
  UnprivilegedOptions options;
  options.timeout = milliseconds(100);
  const Outcome outcome = RunUnprivileged(PROBE_PATH, {"sleep"}, options);
  EXPECT_TRUE(outcome.timed_out);
  EXPECT_EQ(outcome.signal, SIGKILL);
}

TEST_F(HarnessTest, KillAndForget) {
  pid_t pid;
  {
    auto child = UnprivilegedProcess::Spawn(PROBE_PATH, {"sleep"});
    ASSERT_TRUE(child.ok()) << child.status();
    pid = child->pid();
    EXPECT_TRUE(IsRunning(pid));
    EXPECT_EQ(ChildrenOf(getpid()), std::vector<pid_t>{pid});
  }
  EXPECT_FALSE(IsRunning(pid));
  auto child = UnprivilegedProcess::Spawn(PROBE_PATH, {"sleep"});
  ASSERT_TRUE(child.ok()) << child.status();
  child->Kill(SIGTERM);
  EXPECT_EQ(child->Wait().signal, SIGTERM);
}

TEST_F(HarnessTest, BinaryThatIsNotThere) {
  const Outcome outcome = RunUnprivileged("/nowhere", {});
  EXPECT_EQ(outcome.exit_code, -1);
  EXPECT_THAT(outcome.errors, HasSubstr("/nowhere: No such file"));
}

TEST_F(HarnessTest, GuardKillsWhatACrashedTestLeaves) {
  const pid_t group = fork();
  if (group == 0) {
    setpgid(0, 0);
    sleep(1000);
    _exit(0);
  }
  setpgid(group, group);
  const Guard guard = GuardGroup(group);
  ASSERT_GT(guard.process, 0);
  EXPECT_TRUE(IsRunning(group));
  close(guard.alive);
  int status = 0;
  ASSERT_EQ(waitpid(group, &status, 0), group);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_EQ(waitpid(guard.process, &status, 0), guard.process);
}

TEST_F(HarnessTest, OpenFds) {
  const size_t before = CountOpenFds(getpid());
  {
    const UniqueFd file(open("/dev/zero", O_RDONLY | O_CLOEXEC));
    const auto fds = OpenFds(getpid());
    EXPECT_EQ(fds.size(), before + 1);
    EXPECT_EQ(fds.at(file.get()), "/dev/zero");
    EXPECT_EQ(CountFdsLike(fds, "/dev/zero"), 1u);
    EXPECT_EQ(WaitForOpenFds(getpid(), before, milliseconds(20)), before + 1);
  }
  EXPECT_EQ(WaitForOpenFds(getpid(), before, milliseconds(20)), before);
  EXPECT_EQ(CountOpenFds(-1), 0u);
}

TEST_F(HarnessTest, KernelObjectsComeAndGo) {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = 4;
  attributes.value_size = 8;
  attributes.max_entries = 1;
  UniqueFd map(static_cast<int>(
      syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes))));
  ASSERT_TRUE(map.valid());
  KernelObjects objects;
  objects.maps = {IdOfMap(map.get())};
  const auto now = ListKernelObjects();
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_TRUE(objects.Without(*now).empty()) << now->Describe();
  auto left = WaitUntilGone(objects, milliseconds(50));
  ASSERT_TRUE(left.ok());
  EXPECT_EQ(*left, objects);
  map.reset();
  left = WaitUntilGone(objects, milliseconds(5000));
  ASSERT_TRUE(left.ok());
  EXPECT_TRUE(left->empty()) << left->Describe();
}

}  // namespace
}  // namespace bpfgrant::test

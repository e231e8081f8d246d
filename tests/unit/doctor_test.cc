// What doctor reads of a machine, and what it makes of that.

#include <seccomp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <string>

#include "client/bpfgrantctl/findings.h"
#include "client/bpfgrantctl/machine.h"
#include "gtest/gtest.h"
#include "tests/harness/private_folder.h"

namespace bpfgrant::ctl {
namespace {

namespace fs = std::filesystem;

// A machine on which nothing stands in the way.
Machine Good() {
  Machine machine;
  machine.lockdown = "integrity";
  machine.modules = "lockdown,capability,apparmor,bpf";
  machine.kernel_btf = true;
  machine.jit = 1;
  machine.stats = 0;
  machine.open_files = 1024;
  return machine;
}

Finding Find(const Machine& machine, const std::string& topic) {
  Findings findings;
  JudgeMachine(machine, findings);
  const auto found =
      std::find_if(findings.begin(), findings.end(),
                   [&](const Finding& f) { return f.topic == topic; });
  if (found != findings.end()) return *found;
  return {Level::kFine, topic, "not found", ""};
}

void ExpectSays(const Machine& machine, const std::string& topic, Level level,
                const std::string& what, const std::string& advice) {
  const Finding finding = Find(machine, topic);
  EXPECT_EQ(finding.level, level) << topic;
  EXPECT_NE(finding.what.find(what), std::string::npos) << finding.what;
  EXPECT_NE(finding.advice.find(advice), std::string::npos) << finding.advice;
}

TEST(DoctorTest, AGoodMachineIsFine) {
  Findings findings;
  JudgeMachine(Good(), findings);
  EXPECT_GE(findings.size(), 5u);
  for (const Finding& finding : findings) {
    EXPECT_EQ(finding.level, Level::kFine) << finding.what;
    EXPECT_EQ(finding.advice, "") << finding.what;
  }
}

TEST(DoctorTest, Lockdown) {
  Machine machine = Good();
  machine.lockdown = "confidentiality";
  ExpectSays(machine, "lockdown", Level::kWrong, "confidentiality",
             "lockdown=integrity");
}

TEST(DoctorTest, SecurityModules) {
  Machine machine = Good();
  machine.selinux_enforces = true;
  ExpectSays(machine, "lsm", Level::kNote, "SELinux", "ausearch");
}

TEST(DoctorTest, NoTypes) {
  Machine machine = Good();
  machine.kernel_btf = false;
  ExpectSays(machine, "btf", Level::kWrong, "missing", "CONFIG_DEBUG_INFO_BTF");
}

TEST(DoctorTest, Settings) {
  Machine machine = Good();
  machine.jit = 0;
  machine.stats = 1;
  ExpectSays(machine, "jit", Level::kNote, "interpreted", "bpf_jit_enable=1");
  ExpectSays(machine, "statistics", Level::kNote, "timed",
             "bpf_stats_enabled=0");
}

TEST(DoctorTest, NoRing) {
  Machine machine = Good();
  machine.ring_error = EPERM;
  ExpectSays(machine, "your ring", Level::kNote, "not permitted",
             "io_uring_disabled");
  machine.seccomp = true;
  ExpectSays(machine, "your ring", Level::kNote, "not permitted", "seccomp");
  machine.ring_error = ENOSYS;
  ExpectSays(machine, "your ring", Level::kNote, "not implemented", "seccomp");
  machine.seccomp = false;
  ExpectSays(machine, "your ring", Level::kNote, "not implemented",
             "setsockopt");
  machine.ring_error = ENOMEM;
  machine.locked_bytes = 65536;
  ExpectSays(machine, "your ring", Level::kNote, "65536", "ulimit -l");
}

TEST(DoctorTest, Limits) {
  Machine machine = Good();
  machine.open_files = 20;
  ExpectSays(machine, "your limits", Level::kNote, "20", "ulimit -n");
}

class ReadMachineTest : public ::testing::Test {
 protected:
  void Write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  const std::string& root() const { return root_; }

 private:
  const test::PrivateFolder folder_;
  const std::string root_ = folder_.path();
};

TEST_F(ReadMachineTest, OfWhatIsThere) {
  Write("/sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
  Write("/sys/kernel/security/lsm", "lockdown,selinux,bpf");
  Write("/sys/fs/selinux/enforce", "1");
  Write("/sys/kernel/btf/vmlinux", "x");
  Write("/proc/sys/net/core/bpf_jit_enable", "2\n");
  Write("/proc/sys/kernel/bpf_stats_enabled", "1\n");
  Write("/proc/self/status", "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n");
  const Machine machine = ReadMachine(root());
  EXPECT_EQ(machine.lockdown, "confidentiality");
  EXPECT_EQ(machine.modules, "lockdown,selinux,bpf");
  EXPECT_TRUE(machine.selinux_enforces);
  EXPECT_TRUE(machine.kernel_btf);
  EXPECT_EQ(machine.jit, 2);
  EXPECT_EQ(machine.stats, 1);
  EXPECT_TRUE(machine.seccomp);
  EXPECT_FALSE(machine.bpf_filesystem);
  EXPECT_GT(machine.open_files, 0u);
}

TEST_F(ReadMachineTest, OfNothing) {
  const Machine machine = ReadMachine(root());
  EXPECT_EQ(machine.lockdown, "");
  EXPECT_EQ(machine.modules, "");
  EXPECT_FALSE(machine.selinux_enforces);
  EXPECT_FALSE(machine.kernel_btf);
  EXPECT_FALSE(machine.jit.has_value());
  EXPECT_FALSE(machine.seccomp);
}

// A container's filter, in a child that does not come back from it.
TEST(SeccompTest, AFilterIsSeenAndWhatItForbids) {
  const pid_t child = fork();
  if (child == 0) {
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_setup),
                     0);
    if (seccomp_load(filter) != 0) _exit(2);
    const Machine machine = ReadMachine();
    _exit(machine.seccomp && machine.ring_error == EPERM ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}

}  // namespace
}  // namespace bpfgrant::ctl

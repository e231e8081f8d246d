// What whoever has taken over the broker can ask the kernel for: nothing. Each
// call is made by a process that has done what the broker does at its start.

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <string>

#include "daemon/broker/privileges.h"
#include "daemon/mitigations.h"
#include "gtest/gtest.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/skip.h"

namespace bpfgrant::test {
namespace {

constexpr int kWorked = 0;
constexpr int kCouldNotDrop = 255;

long CreateMap() {
  bpf_attr attributes{};
  attributes.map_type = BPF_MAP_TYPE_ARRAY;
  attributes.key_size = attributes.value_size = 4;
  attributes.max_entries = 1;
  return syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
}

long SetUpRing() {
  io_uring_params parameters{};
  return syscall(SYS_io_uring_setup, 4, &parameters);
}

long NewUserNamespace() { return unshare(CLONE_NEWUSER); }

long CloneUserNamespace() {
  return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, nullptr, nullptr, nullptr,
                 nullptr);
}

// A program that cannot be there: ENOENT says that exec itself is allowed.
long Execute() { return execl("/no/such/program", "x", nullptr); }

// The process itself, which it may otherwise always read.
long ReadMemory() {
  char from = 'x', to = 0;
  iovec local{&to, 1}, remote{&from, 1};
  return process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
}

long TraceMe() { return ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }

long TakeFd() {
  const long pidfd = syscall(SYS_pidfd_open, getpid(), 0);
  return syscall(SYS_pidfd_getfd, pidfd, 0, 0);
}

class BrokerPrivilegesTest : public PrivilegedTest {
 protected:
  // errno of `call` in a process that has dropped what the broker drops; 0: it
  // worked.
  int ErrorOf(const std::function<long()>& call,
              const std::vector<std::string>& without = {}) {
    daemon::Mitigations mitigations;
    EXPECT_TRUE(mitigations.Without(without).ok());
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);
      if (!broker::DropToBroker(kBrokerUser, kBrokerUser, mitigations).ok()) {
        _exit(kCouldNotDrop);
      }
      _exit(call() < 0 ? errno : kWorked);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status)) << status;
    return WEXITSTATUS(status);
  }
};

TEST_F(BrokerPrivilegesTest, NothingIsAllowedThatItNeverNeeds) {
  EXPECT_EQ(ErrorOf(CreateMap), EPERM);
  EXPECT_EQ(ErrorOf(SetUpRing), EPERM);
  EXPECT_EQ(ErrorOf(NewUserNamespace), EPERM);
  EXPECT_EQ(ErrorOf(CloneUserNamespace), EPERM);
  EXPECT_EQ(ErrorOf(Execute), EPERM);
  EXPECT_EQ(ErrorOf(ReadMemory), EPERM);
  EXPECT_EQ(ErrorOf(TraceMe), EPERM);
  EXPECT_EQ(ErrorOf(TakeFd), EPERM);
}

// All of these a process without any capability may do.
TEST_F(BrokerPrivilegesTest, TheyAreAllowedWithoutTheFilter) {
  const std::vector<std::string> without = {"broker_seccomp"};
  EXPECT_EQ(ErrorOf(Execute, without), ENOENT);
  EXPECT_EQ(ErrorOf(ReadMemory, without), kWorked);
  EXPECT_EQ(ErrorOf(TraceMe, without), kWorked);
  EXPECT_EQ(ErrorOf(TakeFd, without), kWorked);
  EXPECT_EQ(ErrorOf(CloneUserNamespace, without), kWorked);
  EXPECT_EQ(ErrorOf(NewUserNamespace, without), kWorked);
  EXPECT_EQ(ErrorOf(SetUpRing, without), kWorked);
  // This one the dropped capabilities keep away.
  EXPECT_EQ(ErrorOf(CreateMap, without), EPERM);
}

TEST_F(BrokerPrivilegesTest, MapsCanBeMadeWithoutTheDrop) {
  EXPECT_EQ(ErrorOf(CreateMap, {"broker_seccomp", "broker_drops_privilege"}),
            kWorked);
  // The filter alone holds, too.
  EXPECT_EQ(ErrorOf(CreateMap, {"broker_drops_privilege"}), EPERM);
}

TEST_F(BrokerPrivilegesTest, ThereIsNoWayBack) {
  const auto become_root = [] { return setresuid(0, 0, 0); };
  EXPECT_EQ(ErrorOf(become_root), EPERM);
  EXPECT_EQ(ErrorOf(become_root, {"broker_drops_privilege"}), kWorked);
}

}  // namespace
}  // namespace bpfgrant::test

// Pods as a kubelet and its container runtime make them: by which of their
// facts a policy can tell one from another, and that a pod cannot pass as
// another.

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/cgroup_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

// A container of a pod that runs a sampler. Killed by the destructor.
class Container {
 public:
  // In `cgroup`, with the daemon's folder `runtime`.
  Container(const std::string& cgroup, const std::string& runtime,
            std::vector<std::string> command, uid_t base) {
    command.insert(command.begin(),
                   {ENTER_POD_PATH, cgroup, runtime, absl::StrCat(base)});
    const std::string output = Output();
    process_ = fork();
    if (process_ != 0) return;
    const int file = open(output.c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(file, STDOUT_FILENO);
    dup2(file, STDERR_FILENO);
    std::vector<char*> arguments;
    for (std::string& word : command) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    execv(arguments[0], arguments.data());
    _exit(125);
  }
  ~Container() {
    if (process_ <= 0) return;
    kill(process_, SIGKILL);
    Wait();
  }
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  // Its exit status.
  int Wait() {
    int status = 0;
    EXPECT_EQ(waitpid(process_, &status, 0), process_);
    process_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string Said() const {
    std::ifstream file(Output());
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  std::string Output() const { return folder_.path() / "output"; }

  const PrivateFolder folder_;
  pid_t process_ = -1;
};

class PodTest : public CgroupTest {
 protected:
  // As a kubelet names the cgroup of a container, with systemd as its driver.
  std::string Scope(const std::string& pod) const {
    return Named(
        absl::StrCat("/NAME.slice/NAME-burstable.slice/"
                     "NAME-burstable-pod",
                     pod, ".slice/cri-containerd-", pod, ".scope"));
  }
  std::string CgroupFolder(const std::string& path) const {
    const std::string unified = "/sys/fs/cgroup/unified";
    return (std::filesystem::exists(unified) ? unified : "/sys/fs/cgroup") +
           path;
  }
  void Run(const std::string& scope, bool stay = false, uid_t base = 0) {
    std::vector<std::string> command = {SAMPLER_PATH, "--datagrams", "64"};
    if (stay) command.insert(command.end(), {"--stay", "--pause", "50"});
    container_.emplace(CgroupFolder(scope), daemon().runtime_directory(),
                       command, base);
  }
  void ExpectGranted(const std::string& scope) {
    Run(scope);
    const int status = container_->Wait();
    EXPECT_EQ(status, 0) << container_->Said();
  }
  void ExpectDenied(const std::string& scope) {
    Run(scope);
    EXPECT_EQ(container_->Wait(), 1);
    EXPECT_THAT(container_->Said(), HasSubstr("may not have"));
  }
  // The grant of the container that was started to stay.
  std::optional<v1::GrantInfo> GrantOfContainer() {
    v1::GrantsReply reply;
    const bool came = WaitUntil(
        [&] {
          const auto grants = administrator().Grants();
          if (!grants.ok()) return false;
          reply = *grants;
          return reply.grant_size() == 1;
        },
        kPatience);
    EXPECT_TRUE(came) << container_->Said();
    if (!came) return std::nullopt;
    return reply.grant(0);
  }
  // A pod that may do below its own cgroup as it likes makes what is another's.
  std::string MakeForgedScope() {
    const std::string own = Scope("b");
    tree_.Make(own);
    tree_.Give(own, kNobody);
    std::string path = own;
    for (const std::string& name :
         {Named("/NAME.slice"), std::string("/cri-containerd-a.scope")}) {
      path += name;
      tree_.MakeAs(kNobody, path);
    }
    return path;
  }

  // Before the container, which runs in it.
  std::optional<Container> container_;
};

TEST_F(PodTest, TheSliceOfAPodIsThatPodAlone) {
  ASSERT_NO_FATAL_FAILURE(StartFor("slice: 'NAME-burstable-poda.slice'"));
  tree_.Make(Scope("a"));
  tree_.Make(Scope("b"));
  ExpectGranted(Scope("a"));
  ExpectDenied(Scope("b"));
}

TEST_F(PodTest, TheSliceAboveIsAllPodsAndNothingElse) {
  ASSERT_NO_FATAL_FAILURE(StartFor("slice: 'NAME.slice'"));
  tree_.Make(Scope("a"));
  tree_.Make(Named("/NAME-other.slice/x.service"));
  ExpectGranted(Scope("a"));
  ExpectDenied(Named("/NAME-other.slice/x.service"));
}

TEST_F(PodTest, AGrantSaysWhichContainerHasItAndEndsWithIt) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'cri-containerd-*.scope'"));
  tree_.Make(Scope("a"));
  ASSERT_NO_FATAL_FAILURE(Run(Scope("a"), /*stay=*/true));
  const auto grant = GrantOfContainer();
  ASSERT_TRUE(grant.has_value());
  EXPECT_EQ(grant->unit(), "cri-containerd-a.scope");
  EXPECT_EQ(grant->uid(), kNobody);
  // As the host counts, not as the pod does.
  EXPECT_TRUE(IsRunning(static_cast<pid_t>(grant->pid())));
  container_.reset();
  WaitUntilIdle();
}

// With hostUsers: false there is no telling the host's root from others.
TEST_F(PodTest, InAUserNamespaceTheLibraryTrustsNobody) {
  constexpr uid_t kBase = 1'441'792;
  ASSERT_NO_FATAL_FAILURE(StartFor("slice: 'NAME.slice'"));
  tree_.Make(Scope("a"));
  tree_.Give(Scope("a"), kBase);
  ASSERT_NO_FATAL_FAILURE(Run(Scope("a"), /*stay=*/false, kBase));
  EXPECT_EQ(container_->Wait(), 1);
  EXPECT_THAT(container_->Said(), HasSubstr("not to root"));
}

TEST_F(PodTest, APodThatForgesAScopeIsDenied) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'cri-containerd-a.scope'"));
  ExpectDenied(MakeForgedScope());
}

TEST_F(PodTest, APodThatForgesAScopePasses_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(
      StartFor("unit: 'cri-containerd-a.scope'", {"unit_is_system_managers"}));
  ExpectGranted(MakeForgedScope());
}

}  // namespace
}  // namespace bpfgrant::test

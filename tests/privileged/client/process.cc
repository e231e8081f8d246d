// What a process does to itself: forks, executes anew, forbids itself calls.

#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/harness/open_fds.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

// A child that nobody ends ends by itself.
constexpr unsigned kChildSeconds = 120;

// "ok PID". The child has copies of everything and obeys `child`; with "stay"
// it is there when this process is gone.
std::string Fork(Client& client, const Words& words) {
  int down[2], up[2];
  if (pipe2(down, O_CLOEXEC) < 0 || pipe2(up, O_CLOEXEC) < 0) return Errno();
  const pid_t pid = fork();
  if (pid < 0) return Errno();
  if (pid == 0) {
    alarm(kChildSeconds);
    close(down[1]);
    close(up[0]);
    // What it may execute anew finds its commands where this binary does.
    dup2(down[0], STDIN_FILENO);
    dup2(up[1], STDOUT_FILENO);
    std::FILE* in = fdopen(down[0], "r");
    std::FILE* out = fdopen(up[1], "w");
    Serve(client, in, out);
    // Neither what the grants would do at their end nor the parent's buffers
    // are this process's business.
    while (!words.empty()) pause();
    _exit(0);
  }
  close(down[0]);
  close(up[1]);
  client.to_child = fdopen(down[1], "w");
  client.from_child = fdopen(up[0], "r");
  return absl::StrCat("ok ", pid);
}

std::string TellChild(Client& client, const Words& words) {
  if (client.to_child == nullptr) return "failed: there is no child";
  std::fprintf(client.to_child, "%s\n", absl::StrJoin(words, " ").c_str());
  std::fflush(client.to_child);
  char line[4096];
  if (std::fgets(line, sizeof(line), client.from_child) == nullptr) {
    return "failed: the child is gone";
  }
  line[std::strcspn(line, "\n")] = '\0';
  return line;
}

// The child ends, having nothing more to obey.
std::string EndChild(Client& client, const Words&) {
  if (client.to_child == nullptr) return "failed: there is no child";
  std::fclose(client.to_child);
  client.to_child = nullptr;
  // Its end of the pipe is closed with it.
  while (std::fgetc(client.from_child) != EOF) {
  }
  std::fclose(client.from_child);
  client.from_child = nullptr;
  return "ok";
}

// exec [FILE]: executes this very binary, or FILE, with nothing left but the
// raw connection.
std::string ExecuteAnew(Client& client, const Words& words) {
  const int fd = client.raw.get();
  if (fcntl(fd, F_SETFD, 0) < 0) return Errno();
  const std::string number = absl::StrCat(fd);
  const std::string request = absl::StrCat(client.raw_request);
  const std::string file = words.empty() ? "/proc/self/exe" : words.at(0);
  execl(file.c_str(), "nobody", number.c_str(), request.c_str(), nullptr);
  return Errno();
}

// become FILE: executes it, with nothing left.
std::string Become(Client&, const Words& words) {
  execl(words.at(0).c_str(), "nobody", nullptr);
  return Errno();
}

// disguise FILE AS: executes FILE where AS is, in a mount namespace of its own
// making.
std::string Disguise(Client&, const Words& words) {
  const std::string &file = words.at(0), &as = words.at(1);
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 ||
      mount(file.c_str(), as.c_str(), nullptr, MS_BIND, nullptr) < 0) {
    return Errno();
  }
  // What that namespace gave it beyond what a client has.
  for (unsigned long capability = 0;
       prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; ++capability) {
  }
  execl(as.c_str(), "nobody", "disguised", nullptr);
  return Errno();
}

// forbid CALL...: from now on those answer EPERM.
std::string Forbid(Client&, const Words& words) {
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  if (filter == nullptr) return "failed: seccomp_init";
  for (const std::string& word : words) {
    const int call = seccomp_syscall_resolve_name(word.c_str());
    if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0) < 0) {
      return absl::StrCat("failed: no call ", word);
    }
  }
  // Without it the kernel takes filters from the privileged only; libseccomp
  // sets it too, this says so.
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return Errno();
  const int error = seccomp_load(filter);
  seccomp_release(filter);
  if (error < 0) return absl::StrCat("failed: ", std::strerror(-error));
  return "ok";
}

std::string CountFds(Client&, const Words&) {
  return absl::StrCat("ok ", CountOpenFds(getpid()));
}

}  // namespace

void AddProcessCommands(Commands& commands) {
  commands["fork"] = Fork;
  commands["child"] = TellChild;
  commands["end-child"] = EndChild;
  commands["exec"] = ExecuteAnew;
  commands["disguise"] = Disguise;
  commands["become"] = Become;
  commands["forbid"] = Forbid;
  commands["fds"] = CountFds;
}

}  // namespace bpfgrant::test

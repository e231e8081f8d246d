// enter_pod CGROUP RUNTIME UID-BASE COMMAND...: runs COMMAND as nobody (65534)
// the way a kubelet's container runtime does: in the cgroup CGROUP, in mount,
// pid, cgroup, IPC, UTS and network namespaces of its own, with the folder
// RUNTIME as /run/bpfgrant, read-only, and without any capability. With a
// UID-BASE other than 0 in a user namespace, too, whose users are that and the
// following ones. Exits as COMMAND does; 125: the pod could not be made.

#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

namespace {

constexpr uid_t kNobody = 65534;
constexpr int kLastCapability = 63;

[[noreturn]] void Fail(const char* what) {
  std::fprintf(stderr, "enter_pod: %s: %s\n", what, std::strerror(errno));
  std::_Exit(125);
}

void Check(bool well, const char* what) {
  if (!well) Fail(what);
}

void Write(const std::string& file, const std::string& text) {
  std::ofstream stream(file);
  stream << text << std::flush;
  Check(stream.good(), file.c_str());
}

// What the pod sees at the broker's usual place is the folder on the host.
void Mount(const char* runtime) {
  Check(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "/");
  const int folder = open(runtime, O_PATH | O_DIRECTORY | O_CLOEXEC);
  Check(folder >= 0, runtime);
  Check(mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") == 0, "/run");
  constexpr char kPlace[] = "/run/bpfgrant";
  Check(mkdir(kPlace, 0755) == 0, kPlace);
  const std::string source = "/proc/self/fd/" + std::to_string(folder);
  Check(mount(source.c_str(), kPlace, nullptr, MS_BIND, nullptr) == 0, kPlace);
  Check(
      mount(nullptr, kPlace, nullptr,
            MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
            nullptr) == 0,
      kPlace);
  close(folder);
}

void RaiseLoopback() {
  const int socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP;
  Check(ioctl(socket_fd, SIOCSIFFLAGS, &request) == 0, "lo");
  close(socket_fd);
}

void BecomeNobody() {
  for (int capability = 0; capability <= kLastCapability; ++capability) {
    prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  }
  Check(setgroups(0, nullptr) == 0 &&
            setresgid(kNobody, kNobody, kNobody) == 0 &&
            setresuid(kNobody, kNobody, kNobody) == 0,
        "becoming nobody");
  Check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
}

int WaitFor(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// In the new namespaces but for that of pids, which its child is the first of.
[[noreturn]] void RunInside(const char* runtime, char** command) {
  Mount(runtime);
  RaiseLoopback();
  const pid_t child = fork();
  Check(child >= 0, "fork");
  if (child > 0) std::_Exit(WaitFor(child));
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  BecomeNobody();
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // a change of user has cleared it
  execv(command[0], command);
  Fail(command[0]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 125;
  const std::string base = argv[3];
  Write(std::string(argv[1]) + "/cgroup.procs", "0");
  int ready[2], mapped[2];
  Check(pipe2(ready, O_CLOEXEC) == 0 && pipe2(mapped, O_CLOEXEC) == 0, "pipe");
  char byte = 0;
  const pid_t child = fork();
  Check(child >= 0, "fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int user = base == "0" ? 0 : CLONE_NEWUSER;
    Check(unshare(user | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWCGROUP |
                  CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET) == 0,
          "unshare");
    Check(write(ready[1], &byte, 1) == 1 && read(mapped[0], &byte, 1) == 1,
          "the parent");
    Check(setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0, "the pod's root");
    RunInside(argv[2], argv + 4);
  }
  close(ready[1]);
  Check(read(ready[0], &byte, 1) == 1, "the child");
  if (base != "0") {
    for (const char* file : {"/uid_map", "/gid_map"}) {
      Write("/proc/" + std::to_string(child) + file, "0 " + base + " 65536");
    }
  }
  Check(write(mapped[1], &byte, 1) == 1, "the child");
  return WaitFor(child);
}

// Who a peer in a container is, and who peers are to a daemon in one: real
// namespaces, and the kernel's answers as Identify reads them.

#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/broker/identify.h"
#include "daemon/mitigations.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/skip.h"
#include "tests/privileged/cgroup_tree.h"

namespace bpfgrant::test {
namespace {

using broker::Identify;
using broker::IdentifyBy;
using broker::Peer;

constexpr uid_t kFirstOfContainer = 100000;
constexpr int kNamespaces =
    CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWCGROUP;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool WriteTo(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text << std::flush;
  return file.good();
}

// A child that ends with this thread; its exit status is what `body` returns.
pid_t Fork(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child != 0) return child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  _exit(body());
}

int StatusOf(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

UniqueFd NewSocket() {
  return UniqueFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

// Puts the calling process, alone, into a user namespace in which 0 is `first`
// outside, and there is no other number; it is that 0 then.
bool EnterUserNamespace(uid_t first) {
  UniqueFd ready[2];
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return false;
  ready[0].reset(ends[0]);
  ready[1].reset(ends[1]);
  const std::string folder = absl::StrCat("/proc/", getpid());
  const std::string map = absl::StrCat("0 ", first, " 1");
  // Only somebody outside may map what is not the caller's own.
  const pid_t mapper = Fork([&] {
    ready[1].reset();
    char byte = 0;
    return read(ready[0].get(), &byte, 1) == 1 &&
                   WriteTo(folder + "/uid_map", map) &&
                   WriteTo(folder + "/gid_map", map)
               ? 0
               : 1;
  });
  const bool entered = unshare(CLONE_NEWUSER) == 0;
  if (entered && write(ready[1].get(), "x", 1) != 1) return false;
  ready[1].reset();
  return StatusOf(mapper) == 0 && entered && setgroups(0, nullptr) == 0 &&
         setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0;
}

class NamespaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    BPFGRANT_REQUIRE_CAPABILITIES(CAP_SYS_ADMIN, CAP_SETUID, CAP_SETGID);
    if (!tree_.usable()) GTEST_SKIP() << "kernel: no cgroup v2 is mounted";
    listener_ = NewSocket();
    address_.sun_family = AF_UNIX;
    length_ = sizeof(address_);
    ASSERT_EQ(bind(listener_.get(), address(), sizeof(sa_family_t)), 0);
    ASSERT_EQ(getsockname(listener_.get(), address(), &length_), 0);
    ASSERT_EQ(listen(listener_.get(), 8), 0);
  }
  void TearDown() override {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }

  sockaddr* address() { return reinterpret_cast<sockaddr*>(&address_); }
  std::string Named(const std::string& text) const {
    return absl::StrReplaceAll(text, {{"NAME", tree_.name()}});
  }
  // Connects from where the calling process is by a socket that was made
  // elsewhere (the name is of a network namespace), and waits to be killed.
  int ConnectAndWait(const UniqueFd& socket) {
    if (connect(socket.get(), address(), length_) < 0) return 99;
    pause();
    return 0;
  }
  // Somebody in `cgroup` who goes where `enter` leads, and connects from there
  // as the first process of a new pid namespace if there is one.
  void StartPeer(const std::string& cgroup,
                 const std::function<bool()>& enter) {
    tree_.Make(cgroup);
    children_.push_back(Fork([&] {
      const UniqueFd socket = NewSocket();
      tree_.Enter(cgroup, getpid());
      if (!enter()) return 99;
      return StatusOf(Fork([&] { return ConnectAndWait(socket); }));
    }));
  }
  UniqueFd Accept() {
    // What never comes would be waited for for ever.
    const timeval patience{20, 0};
    setsockopt(listener_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience,
               sizeof(patience));
    return UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  // What Identify says of whoever connects next.
  absl::StatusOr<Peer> IdentifyNext(const daemon::Mitigations& mitigations) {
    const UniqueFd socket = Accept();
    return Identify(socket.get(), IdentifyBy::kBest, mitigations);
  }

  // Before the children, which run in it.
  CgroupTree tree_;
  UniqueFd listener_;
  sockaddr_un address_{};
  socklen_t length_ = 0;
  std::vector<pid_t> children_;
};

// All namespaces at once, as a container has them; within it, it is root, the
// first process, in a cgroup "/" of its own, and in one that it calls
// nginx.service.
TEST_F(NamespaceTest, APeerInAContainerIsWhoItIsOutside) {
  StartPeer(Named("/NAME.slice/NAME-web.scope/system.slice/nginx.service"), [] {
    return EnterUserNamespace(kFirstOfContainer) && unshare(kNamespaces) == 0;
  });
  const absl::StatusOr<Peer> peer = IdentifyNext({});
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->subject.uid, kFirstOfContainer);
  EXPECT_EQ(peer->subject.gid, kFirstOfContainer);
  EXPECT_TRUE(peer->subject.groups.empty());
  EXPECT_TRUE(broker::IsAlive(peer->pidfd));
  // By its number here; there it is 1.
  const std::string status =
      ReadAll(absl::StrCat("/proc/", peer->pid, "/status"));
  EXPECT_TRUE(absl::StrContains(status, absl::StrCat(peer->pid, "\t1\n")))
      << status;
  ASSERT_TRUE(peer->subject.location.has_value());
  EXPECT_EQ(peer->unit(), Named("NAME-web.scope"));
  EXPECT_EQ(peer->subject.location->cgroup,
            Named("/NAME.slice/NAME-web.scope/system.slice/nginx.service"));
}

// Only a user namespace makes another root of a container's.
TEST_F(NamespaceTest, RootOfAContainerWithoutAUserNamespaceIsRoot) {
  StartPeer(Named("/NAME.slice/NAME-web.scope"),
            [] { return unshare(kNamespaces) == 0; });
  const absl::StatusOr<Peer> peer = IdentifyNext({});
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->subject.uid, 0u);
  EXPECT_EQ(peer->unit(), Named("NAME-web.scope"));
}

TEST_F(NamespaceTest, APeerThatHasNoNumberHereIsRefused) {
  children_.push_back(Fork([&] {
    const UniqueFd socket = NewSocket();
    return ConnectAndWait(socket);
  }));
  const pid_t inside = Fork([&] {
    if (unshare(CLONE_NEWPID) < 0) return 0;
    return StatusOf(Fork(
        [&] { return static_cast<int>(ReasonOf(IdentifyNext({}).status())); }));
  });
  EXPECT_EQ(StatusOf(inside), v1::REASON_PEER_UNNAMED);
}

class OthersProcTest : public NamespaceTest {
 protected:
  static constexpr int kOwn = 101, kVictims = 102, kNone = 103;

  // Of a daemon in a pid namespace whose /proc is still that of the one
  // outside: whose unit it takes a peer for that has there the number which a
  // victim has outside.
  int WhoseUnit(const daemon::Mitigations& mitigations) {
    const std::string own = Named("/NAME.slice/NAME-own.service");
    const std::string victims = Named("/NAME.slice/NAME-victim.service");
    tree_.Make(own);
    tree_.Make(victims);
    const pid_t victim = Fork([] {
      pause();
      return 0;
    });
    children_.push_back(victim);
    tree_.Enter(victims, victim);
    return StatusOf(Fork([&] {
      if (unshare(CLONE_NEWPID) < 0) return 0;
      return StatusOf(Fork([&] {
        StartPeerWithNumber(victim, own);
        const absl::StatusOr<Peer> peer = IdentifyNext(mitigations);
        if (!peer.ok() || peer->pid != victim) return 0;
        return peer->unit() == Named("NAME-own.service")      ? kOwn
               : peer->unit() == Named("NAME-victim.service") ? kVictims
                                                              : kNone;
      }));
    }));
  }

 private:
  void StartPeerWithNumber(pid_t number, const std::string& cgroup) {
    clone_args how{};
    how.set_tid = reinterpret_cast<uint64_t>(&number);
    how.set_tid_size = 1;
    how.exit_signal = SIGCHLD;
    if (syscall(SYS_clone3, &how, sizeof(how)) != 0) return;
    tree_.Enter(cgroup, 0);
    const UniqueFd socket = NewSocket();
    _exit(ConnectAndWait(socket));
  }
};

TEST_F(OthersProcTest, APeersUnitIsItsOwn) { EXPECT_EQ(WhoseUnit({}), kOwn); }

TEST_F(OthersProcTest, APeersUnitIsAnothers_WithoutMitigation) {
  daemon::Mitigations mitigations;
  mitigations.location_by_pidfd = false;
  EXPECT_EQ(WhoseUnit(mitigations), kVictims);
}

class UnmappedTest : public NamespaceTest {
 protected:
  static constexpr int kTakenForNobody = 101;

  // What a daemon that is root of a user namespace takes somebody for who has
  // no number in it: a reason, or kTakenForNobody.
  int WhoIsOutside(const daemon::Mitigations& mitigations) {
    children_.push_back(Fork([&] {
      if (setgroups(0, nullptr) < 0 || setresgid(1000, 1000, 1000) < 0 ||
          setresuid(1000, 1000, 1000) < 0) {
        return 99;
      }
      const UniqueFd socket = NewSocket();
      return ConnectAndWait(socket);
    }));
    return StatusOf(Fork([&] {
      if (!EnterUserNamespace(kFirstOfContainer)) return 0;
      const absl::StatusOr<Peer> peer = IdentifyNext(mitigations);
      if (!peer.ok()) return static_cast<int>(ReasonOf(peer.status()));
      return peer->subject.uid == 65534 ? kTakenForNobody : 0;
    }));
  }
};

TEST_F(UnmappedTest, WhoHasNoNumberIsRefused) {
  EXPECT_EQ(WhoIsOutside({}), v1::REASON_PEER_UNNAMED);
}

TEST_F(UnmappedTest, WhoHasNoNumberIsNobody_WithoutMitigation) {
  daemon::Mitigations mitigations;
  mitigations.unmapped_ids_refused = false;
  EXPECT_EQ(WhoIsOutside(mitigations), kTakenForNobody);
}

// Where every number is its own, nobody is nobody.
TEST_F(UnmappedTest, NobodyIsNobody) {
  StartPeer(Named("/NAME.slice/x.service"), [] {
    return setgroups(0, nullptr) == 0 && setresgid(65534, 65534, 65534) == 0 &&
           setresuid(65534, 65534, 65534) == 0;
  });
  const absl::StatusOr<Peer> peer = IdentifyNext({});
  ASSERT_TRUE(peer.ok()) << peer.status();
  EXPECT_EQ(peer->subject.uid, 65534u);
}

}  // namespace
}  // namespace bpfgrant::test

// Who takes and gives back huge maps in a row never fails because of its own
// earlier ones, whose memory the kernel returns at its leisure.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bpfgrant/connection.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/process_tree.h"
#include "tests/harness/skip.h"

namespace bpfgrant::test {
namespace {

namespace fs = std::filesystem;

// Room for three of those maps, and for the loader itself.
constexpr uint64_t kLimit = 208ull << 20;
constexpr size_t kFarTooMany = 4;
constexpr int kInARow = 24;

bool WriteTo(const fs::path& file, const std::string& text) {
  std::ofstream out(file);
  out << text << std::flush;
  return out.good();
}

// Reads all files that a process executes code of. What is read here is no part
// of a group's memory: within it, the kernel would give up the daemon's code to
// make room, and end the daemon when it cannot be read back.
void ReadMappedFiles(pid_t pid) {
  std::ifstream maps(absl::StrCat("/proc/", pid, "/maps"));
  std::set<std::string> files;
  for (std::string line; std::getline(maps, line);) {
    const size_t path = line.find('/');
    if (path != std::string::npos) files.insert(line.substr(path));
  }
  for (const std::string& path : files) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes(1 << 20);
    while (
        file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) {
    }
  }
}

// Whose memory is limited, from when they are put there.
class MemoryGroup {
 public:
  MemoryGroup() : path_(root_ / absl::StrCat("bpfgrant-test-", getpid())) {
    if (!old_) WriteTo(root_ / "cgroup.subtree_control", "+memory");
    mkdir(path_.c_str(), 0755);
    usable_ = WriteTo(path_ / (old_ ? "memory.limit_in_bytes" : "memory.max"),
                      absl::StrCat(kLimit));
  }
  ~MemoryGroup() {
    // What it held is gone some time after the daemon.
    WaitUntil([&] { return rmdir(path_.c_str()) == 0; },
              std::chrono::seconds(20));
  }
  bool usable() const { return usable_; }
  void Add(pid_t pid) {
    EXPECT_TRUE(WriteTo(path_ / "cgroup.procs", absl::StrCat(pid)));
  }

 private:
  // A hierarchy of its own, as before cgroup2.
  const bool old_ = fs::exists("/sys/fs/cgroup/memory/cgroup.procs");
  const fs::path root_ = old_ ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup";
  const fs::path path_;
  bool usable_ = false;
};

class HugeMapsTest : public DaemonTest {
 protected:
  void SetUp() override {
    DaemonTest::SetUp();
    if (IsSkipped()) return;
    BPFGRANT_REQUIRE_KERNEL(group_.usable(), "memory cgroup to be made here");
  }
  void Start(const std::vector<std::string>& without = {}) {
    ASSERT_TRUE(StartDaemon(
        {.policy = kAllowAll, .build_catalog = false, .without = without}));
    // The loader makes the maps, and asks for nothing else while the kernel has
    // not got a whole one together; the broker does, and would be ended for it.
    const pid_t loader = daemon().PidOf(Daemon::Process::kLoader);
    ReadMappedFiles(loader);
    group_.Add(loader);
    const fs::path catalog = HUGE_CATALOG;
    std::ifstream manifest(catalog / "huge.manifest");
    daemon().AddCatalogEntry("huge",
                             {std::istreambuf_iterator<char>(manifest), {}},
                             catalog / "huge.bpf.o");
    ASSERT_TRUE(daemon().Reload().ok());
  }
  absl::StatusOr<Connection> Connect() {
    return Connection::Connect({.path = daemon().broker_socket(),
                                .timeout = std::chrono::seconds(30)});
  }
  static absl::StatusOr<Grant> Take(Connection& connection) {
    return connection.Acquire({.program = "huge", .interface = "huge/1"});
  }

  // Has as many as there is room for, gives all of them back, and takes one
  // more while somebody keeps them: as long as that takes, `longest` at most.
  absl::StatusOr<Grant> TakeWhatIsAboutToComeBack(
      Connection& connection, std::chrono::milliseconds longest) {
    std::vector<UniqueFd> copies;
    {
      const std::vector<Grant> all = TakeAll(connection);
      for (const Grant& grant : all) {
        for (const Grant::Handle& handle : grant.handles()) {
          copies.emplace_back(fcntl(handle.fd.get(), F_DUPFD_CLOEXEC, 0));
        }
      }
    }
    std::atomic<bool> answered = false;
    std::thread closer([&] {
      WaitUntil([&] { return answered.load(); }, longest);
      copies.clear();
    });
    auto grant = Take(connection);
    answered = true;
    closer.join();
    return grant;
  }
  // Until it is refused again and again, since a refusal has the kernel make
  // room of what it merely caches: then `last_` says why.
  std::vector<Grant> TakeAll(Connection& connection) {
    std::vector<Grant> all;
    for (int refused = 0; refused < 5 && all.size() < kFarTooMany;) {
      auto grant = Take(connection);
      last_ = grant.status();
      if (grant.ok()) {
        all.push_back(*std::move(grant));
        refused = 0;
      } else {
        ++refused;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    }
    return all;
  }

  MemoryGroup group_;
  absl::Status last_;
};

TEST_F(HugeMapsTest, InARowNeverFail) {
  ASSERT_NO_FATAL_FAILURE(Start());
  auto connection = Connect();
  ASSERT_TRUE(connection.ok()) << connection.status();
  for (int i = 0; i < kInARow; ++i) {
    auto grant = Take(*connection);
    ASSERT_TRUE(grant.ok()) << "number " << i << ": " << grant.status();
    ASSERT_TRUE(grant->Release().ok());
  }
}

TEST_F(HugeMapsTest, WhatIsAboutToComeBackIsWaitedFor) {
  ASSERT_NO_FATAL_FAILURE(Start());
  auto connection = Connect();
  ASSERT_TRUE(connection.ok()) << connection.status();
  const auto grant =
      TakeWhatIsAboutToComeBack(*connection, std::chrono::milliseconds(500));
  EXPECT_TRUE(grant.ok()) << grant.status();
}

TEST_F(HugeMapsTest, ItIsNotWaitedForWhereNobodyKnowsOfIt) {
  ASSERT_NO_FATAL_FAILURE(Start({"quota_until_gone"}));
  auto connection = Connect();
  ASSERT_TRUE(connection.ok()) << connection.status();
  const auto grant =
      TakeWhatIsAboutToComeBack(*connection, std::chrono::seconds(20));
  EXPECT_EQ(ReasonOf(grant.status()), v1::REASON_BUSY) << grant.status();
}

TEST_F(HugeMapsTest, WhatIsNotGivenBackIsNotWaitedFor) {
  ASSERT_NO_FATAL_FAILURE(Start());
  auto connection = Connect();
  ASSERT_TRUE(connection.ok()) << connection.status();
  EXPECT_LT(TakeAll(*connection).size(), kFarTooMany);
  EXPECT_EQ(ReasonOf(last_), v1::REASON_BUSY) << last_;
}

}  // namespace
}  // namespace bpfgrant::test

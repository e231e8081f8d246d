// What goes into the service manager's store, and how much of it.

#include "daemon/broker/keeping.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/fd_store.h"
#include "gtest/gtest.h"
#include "tests/harness/fd_keeper.h"
#include "tests/harness/notify_socket.h"
#include "tests/harness/private_folder.h"

namespace bpfgrant::broker {
namespace {

constexpr uid_t kUser = 65534;

// Beside a service manager that reads what it is told, or does not.
class StoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string manager = folder_.path() / "store.sock";
    ASSERT_TRUE(notices_.Bind(folder_.path() / "notify.sock").ok());
    ASSERT_TRUE(keeper_.Start(manager, folder_.path() / "notify.sock").ok());
    setenv("NOTIFY_SOCKET", manager.c_str(), 1);
    setenv("FDSTORE", "32768", 1);
  }
  void TearDown() override {
    unsetenv("NOTIFY_SOCKET");
    unsetenv("FDSTORE");
  }
  // A file of its own each time: one that is there is not kept again.
  static bool Put(daemon::FdStore& store, const std::string& name) {
    const UniqueFd file(eventfd(0, EFD_CLOEXEC));
    const int number = file.get();
    return store.Put(name, absl::MakeSpan(&number, 1));
  }
  // Until the service manager has all of it.
  static void Settle(daemon::FdStore& store) {
    while (store.queued() > 0) store.Flush();
  }

  const test::PrivateFolder folder_;
  test::NotifySocket notices_;
  test::FdKeeper keeper_;
};

TEST_F(StoreTest, KeepsWhatIsPutAndNotRemoved) {
  auto store = daemon::FdStore::FromEnvironment();
  ASSERT_TRUE(store.keeps());
  EXPECT_TRUE(Put(store, "a.1"));
  EXPECT_TRUE(Put(store, "a.2"));
  store.Remove("a.1");
  store.Remove("never there");
  Settle(store);
  EXPECT_EQ(keeper_.Count("a."), 1u);
  EXPECT_EQ(store.size(), 1u);
}

TEST_F(StoreTest, WithoutAManagerNothingIsKept) {
  unsetenv("FDSTORE");
  auto store = daemon::FdStore::FromEnvironment();
  EXPECT_FALSE(store.keeps());
  EXPECT_FALSE(Put(store, "a"));
}

// All names together are one variable of the next daemon's environment.
TEST_F(StoreTest, NamesFitAnEnvironment) {
  constexpr size_t kMostBytes = 128 * 1024 / 2;
  auto store = daemon::FdStore::FromEnvironment();
  const std::string long_name(200, 'n');
  size_t bytes = 0;
  for (int i = 0; Put(store, absl::StrCat(long_name, i)); ++i) {
    bytes += long_name.size() + absl::StrCat(i).size() + 1;
    Settle(store);
    ASSERT_LT(bytes, kMostBytes);
  }
  EXPECT_GT(bytes, kMostBytes / 2);
}

// What waits is bounded, and what is not wanted any more does not wait.
TEST_F(StoreTest, AManagerThatDoesNotReadHoldsNothingUp) {
  auto store = daemon::FdStore::FromEnvironment();
  keeper_.Pause(true);
  for (int i = 0; i < 5000; ++i) {
    const std::string name = absl::StrCat(i);
    Put(store, name);
    if (i % 2 == 0) store.Remove(name);
  }
  const size_t queued = store.queued();
  EXPECT_LT(queued, 3000u);
  keeper_.Pause(false);
  Settle(store);
  EXPECT_EQ(keeper_.Count(""), store.size());
}

class KeepingTest : public StoreTest {
 protected:
  // How many of so many sessions of `uid` are kept.
  static int KeptOf(Keeping& keeping, uid_t uid, int sessions) {
    int kept = 0;
    for (int i = 0; i < sessions; ++i) {
      Session session;
      session.id = keeping.file()->NextSession();
      session.peer.subject.uid = uid;
      const UniqueFd socket(eventfd(0, EFD_CLOEXEC));
      kept += keeping.Keep(session, socket.get());
      // It ends at once; what it cost the service manager is done.
      keeping.Forget(session);
      keeping.Settle(std::chrono::seconds(10));
    }
    return kept;
  }

  EventLoop loop_;
};

TEST_F(KeepingTest, OneUsersSessionsAreLimited) {
  Keeping keeping(loop_, daemon::FdStore::FromEnvironment(), {});
  const int many = static_cast<int>(Keeping::kKeptAtOnce) + 1000;
  EXPECT_LT(KeptOf(keeping, kUser, many), many - 500);
  EXPECT_EQ(KeptOf(keeping, kUser + 1, 10), 10);
}

TEST_F(KeepingTest, OneUsersSessionsAreNot_WithoutTheLimit) {
  Keeping keeping(loop_, daemon::FdStore::FromEnvironment(), {},
                  /*limits_users=*/false);
  const int many = static_cast<int>(Keeping::kKeptAtOnce) + 1000;
  EXPECT_EQ(KeptOf(keeping, kUser, many), many);
}

// What an earlier one left is found once, and the rest let go of.
TEST_F(KeepingTest, TheNextOneFindsIt) {
  {
    Keeping keeping(loop_, daemon::FdStore::FromEnvironment(), {});
    Session session;
    session.id = keeping.file()->NextSession();
    const UniqueFd socket(eventfd(0, EFD_CLOEXEC));
    EXPECT_TRUE(keeping.Keep(session, socket.get()));
    keeping.Settle(std::chrono::seconds(10));
  }
  keeper_.Put("foreign", UniqueFd(eventfd(0, EFD_CLOEXEC)));
  Keeping next(loop_, daemon::FdStore::FromEnvironment(), keeper_.Copy());
  EXPECT_EQ(next.TakeRecords().size(), 1u);
  EXPECT_EQ(next.TakeFound("session.1").size(), 1u);
  EXPECT_TRUE(next.TakeFound("session.1").empty());
  next.ForgetTheRest();
  next.Settle(std::chrono::seconds(10));
  EXPECT_EQ(keeper_.Count("foreign"), 0u);
  EXPECT_EQ(keeper_.Count("session."), 1u);
}

}  // namespace
}  // namespace bpfgrant::broker

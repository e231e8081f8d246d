// Jobs in children: how many at once and of whom, and those that hang, die, or
// say too much.

#include "daemon/loader/children.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace bpfgrant::daemon {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using End = Children::End;

class ChildrenTest : public ::testing::Test {
 protected:
  void Start(uint64_t id, uint32_t owner, std::function<std::string()> work,
             milliseconds patience = seconds(20),
             std::vector<UniqueFd> fds = {}) {
    children_.Start({id, owner, Children::Clock::now() + patience,
                     std::move(fds),
                     [work = std::move(work)](const std::vector<UniqueFd>&) {
                       return work();
                     }});
  }
  void StartHanging(uint64_t id, uint32_t owner, milliseconds patience) {
    Start(
        id, owner,
        [] {
          pause();
          return std::string();
        },
        patience);
  }
  static std::string Word() { return "word"; }
  // Until all are answered, or `id` is; looking as seldom as it may.
  std::map<uint64_t, Children::Result> Wait(uint64_t id = 0) {
    std::map<uint64_t, Children::Result> results;
    while (children_.pending() > 0 && !results.contains(id)) {
      std::vector<pollfd> polled;
      children_.AddTo(polled);
      const auto left = std::chrono::ceil<milliseconds>(
          children_.NextDeadline().value() - Children::Clock::now());
      poll(polled.data(), polled.size(),
           static_cast<int>(std::max<int64_t>(left.count(), 0)));
      for (Children::Result& result : children_.Collect()) {
        EXPECT_TRUE(results.emplace(result.id, result).second) << result.id;
      }
    }
    return results;
  }

  Children children_;
};

TEST_F(ChildrenTest, SayWhatTheyFound) {
  const std::string much(Children::kMaxSaid, 'x');
  Start(1, 1, Word);
  Start(2, 1, [&much] { return much; });
  auto results = Wait();
  EXPECT_EQ(results[1].end, End::kSaid);
  EXPECT_EQ(results[1].said, "word");
  EXPECT_EQ(results[2].end, End::kSaid);
  EXPECT_EQ(results[2].said, much);
}

TEST_F(ChildrenTest, WhoSaysTooMuchOrNothingOrDies) {
  Start(1, 1, [] { return std::string(Children::kMaxSaid + 1, 'x'); });
  Start(2, 1, [] { return std::string(); });
  Start(3, 1, [] {
    raise(SIGKILL);
    return std::string("never");
  });
  for (const auto& [id, result] : Wait()) EXPECT_EQ(result.end, End::kDied);
}

TEST_F(ChildrenTest, HaveNoFdsButTheirOwn) {
  const UniqueFd ours(open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<UniqueFd> theirs;
  theirs.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int its = theirs.front().get();
  Start(
      1, 1,
      [mine = ours.get(), its] {
        return absl::StrCat(fcntl(mine, F_GETFD) < 0 && errno == EBADF, " ",
                            fcntl(its, F_GETFD) >= 0);
      },
      seconds(20), std::move(theirs));
  EXPECT_EQ(Wait()[1].said, "1 1");
}

// Who makes jobs hang has four places, and all others theirs.
TEST_F(ChildrenTest, OneOwnersThatHangLeavePlacesForOthers) {
  const auto begun = Children::Clock::now();
  for (uint64_t id = 1; id <= 3 * Children::kMaxChildrenOfOwner; ++id) {
    StartHanging(id, /*owner=*/1, seconds(2));
  }
  Start(100, /*owner=*/2, Word);
  EXPECT_EQ(Wait(100)[100].end, End::kSaid);
  EXPECT_LT(Children::Clock::now() - begun, seconds(2));
  const auto rest = Wait();
  EXPECT_EQ(rest.size(), 3 * Children::kMaxChildrenOfOwner);
  for (const auto& [id, result] : rest) EXPECT_EQ(result.end, End::kTooLate);
  // Those that waited for a place are late as well, not one after the other.
  EXPECT_LT(Children::Clock::now() - begun, seconds(10));
}

TEST_F(ChildrenTest, MoreThanThereArePlaces) {
  constexpr uint64_t kJobs = 3 * Children::kMaxChildren;
  for (uint64_t id = 1; id <= kJobs; ++id) {
    Start(id, static_cast<uint32_t>(id), Word);
  }
  const auto results = Wait();
  EXPECT_EQ(results.size(), kJobs);
  for (const auto& [id, result] : results) EXPECT_EQ(result.end, End::kSaid);
}

}  // namespace
}  // namespace bpfgrant::daemon

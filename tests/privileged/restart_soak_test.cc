// The daemon is ended again and again, at any moment, while clients acquire and
// release; in the end nobody has lost anything, and nothing is left over.
//
// RESTARTS says how often.

#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "tests/harness/process_tree.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using Process = Daemon::Process;
using std::chrono::milliseconds;

constexpr int kClients = 4;
// A restart takes about so long, on a slow machine ten times that.
constexpr milliseconds kEach{250};

class RestartSoakTest : public ClientTest {
 protected:
  // The grants that live, as the daemon says.
  std::set<uint64_t> Ledger() {
    std::set<uint64_t> ids;
    const auto grants = administrator().Grants();
    EXPECT_TRUE(grants.ok()) << grants.status();
    for (const v1::GrantInfo& grant : grants->grant()) {
      if (grant.ended() == v1::REASON_UNSPECIFIED) ids.insert(grant.grant());
    }
    return ids;
  }
  // Ends it `times` times, in any way and at any moment.
  void EndAgainAndAgain(int times) {
    std::mt19937 random(20'261);
    // It lives about as long as it takes to come back: on a slow machine it
    // must be there often enough for whoever waits.
    int64_t longest_ms = 60;
    for (int i = 0; i < times; ++i) {
      std::this_thread::sleep_for(
          milliseconds(static_cast<int64_t>(random()) % longest_ms));
      const auto begin = std::chrono::steady_clock::now();
      const Process process =
          random() % 2 == 0 ? Process::kBroker : Process::kLoader;
      const int signal =
          process == Process::kBroker && random() % 3 == 0 ? SIGUSR1 : SIGKILL;
      const absl::Status status = daemon().Restart(process, signal);
      ASSERT_TRUE(status.ok()) << i << ": " << std::string(status.message());
      longest_ms =
          std::max<int64_t>(60, std::chrono::ceil<milliseconds>(
                                    std::chrono::steady_clock::now() - begin)
                                    .count());
      // One that never reads would be told of each and hear of none.
      ASSERT_TRUE(administrator().ProcessEvents().ok());
    }
  }
};

TEST_F(RestartSoakTest, NothingIsLostAndNothingIsLeft) {
  const auto before = ListKernelObjects();
  ASSERT_TRUE(before.ok()) << before.status();
  DaemonOptions options;
  options.store = true;
  options.programs = kTwoPrograms;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  std::deque<Nobody> clients;
  for (int i = 0; i < kClients; ++i) {
    Connect(clients.emplace_back());
    clients.back().Tell(absl::StrCat("churn ", RESTARTS * kEach.count()));
  }
  ASSERT_NO_FATAL_FAILURE(EndAgainAndAgain(RESTARTS));

  std::set<uint64_t> held;
  for (Nobody& client : clients) {
    const std::string answer =
        client.Answer(RESTARTS * kEach + milliseconds(120'000));
    const std::vector<std::string> words = absl::StrSplit(answer, ' ');
    ASSERT_EQ(words.front(), "ok") << answer;
    uint64_t acquired = 0;
    ASSERT_TRUE(absl::SimpleAtoi(words.at(1), &acquired)) << answer;
    EXPECT_EQ(words.size() - 2, std::min<uint64_t>(acquired, 3)) << answer;
    for (size_t i = 2; i < words.size(); ++i) {
      uint64_t id = 0;
      ASSERT_TRUE(absl::SimpleAtoi(words[i], &id)) << answer;
      EXPECT_TRUE(held.insert(id).second) << id << " was granted twice";
    }
  }
  EXPECT_FALSE(held.empty());
  // Each has what the daemon says it has, and no more.
  EXPECT_TRUE(WaitUntil([&] { return Ledger() == held; }, kPatience))
      << ::testing::PrintToString(Ledger()) << " where clients have "
      << ::testing::PrintToString(held);

  clients.clear();
  WaitUntilIdle();
  EXPECT_TRUE(WaitUntil([&] { return Status().held() == 0; }, kPatience))
      << Status().held() << " grants are still held";
  EXPECT_TRUE(daemon().Stop().ok());
  daemon().store().Drop("");
  // By the kernel's own list nothing is left of all that.
  KernelObjects left;
  EXPECT_TRUE(WaitUntil(
      [&] {
        const auto after = ListKernelObjects();
        if (after.ok()) left = after->Without(*before);
        return after.ok() && left.empty();
      },
      kPatience))
      << left.Describe();
}

}  // namespace
}  // namespace bpfgrant::test

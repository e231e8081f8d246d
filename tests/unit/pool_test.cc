#include "daemon/broker/pool.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "daemon/broker/ledger.h"
#include "daemon/broker/remains.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "spdlog/spdlog.h"
#include "tests/wire/moment.h"
#include "tests/wire/scripted_loader.h"

namespace bpfgrant::broker {
namespace {

using broker_test::MemoryFile;
using broker_test::ScriptedLoader;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Mode = ScriptedLoader::Mode;

struct Entry {
  std::string name = "a";
  uint32_t target = 0;
  std::string version = "1";
  int handles = 1;
  uint64_t bytes = 100;
};

std::shared_ptr<const Snapshot> MakeSnapshot(
    const std::vector<Entry>& entries) {
  daemon::Snapshot message;
  for (const Entry& entry : entries) {
    daemon::CatalogEntry& added = *message.add_entry();
    v1::DescribeReply& description = *added.mutable_description();
    description.mutable_summary()->set_name(entry.name);
    description.mutable_summary()->set_available(true);
    description.set_digest("digest " + entry.version);
    description.set_instance_bytes(entry.bytes);
    for (int i = 0; i < entry.handles; ++i) description.add_handle();
    added.set_pool_target(entry.target);
    added.set_identity(entry.version);
  }
  return *Snapshot::Read(MemoryFile(message.SerializeAsString()));
}

// A pool and its loader on a loop in a thread of its own.
class PoolTest : public ::testing::Test {
 protected:
  struct Parts {
    explicit Parts(PoolLimits limits, uint32_t slots, bool reuse,
                   UniqueFd loader_end, UniqueFd pool_end, UniqueFd map)
        : scripted(loop, std::move(loader_end), STDERR_FILENO),
          loader(loop, std::move(pool_end), [] {}),
          gates(*Gates::Map(std::move(map), slots, true)),
          remains(loop, loader, ledger, true),
          pool(loop, loader, gates, remains, limits, reuse) {
      loader.Start();
    }
    EventLoop loop;
    ScriptedLoader scripted;
    LoaderClient loader;
    Gates gates;
    Ledger ledger;
    Remains remains;
    Pool pool;
    std::shared_ptr<const Snapshot> snapshot;
    // What waiters were given, in order.
    std::vector<std::pair<uint64_t, absl::StatusCode>> served;
    std::vector<Instance> instances;
  };

  void Start(PoolLimits limits = {1 << 20, 1000}, uint32_t slots = 1024,
             bool reuse = false) {
    spdlog::set_level(spdlog::level::off);
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    parts_ = std::make_unique<Parts>(
        limits, slots, reuse, UniqueFd(ends[0]), UniqueFd(ends[1]),
        MemoryFile(std::string(slots * sizeof(uint64_t), '\0')));
    thread_ = std::thread([this] { parts_->loop.Run(); });
  }
  void TearDown() override {
    if (parts_ == nullptr) return;
    parts_->loop.Post([this] { parts_->loop.Exit(0); });
    thread_.join();
  }

  template <typename Function>
  auto Ask(Function function) {
    using Result = decltype(function(*parts_));
    std::optional<std::conditional_t<std::is_void_v<Result>, int, Result>>
        result;
    broker_test::Moment done;
    parts_->loop.Post([&] {
      if constexpr (std::is_void_v<Result>) {
        function(*parts_);
      } else {
        result.emplace(function(*parts_));
      }
      done.Happen();
    });
    done.Wait();
    if constexpr (!std::is_void_v<Result>) return *std::move(result);
  }
  void WaitUntil(const char* what,
                 const std::function<bool(Parts&)>& condition) {
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!Ask(condition)) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << what;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void Settle() {
    WaitUntil("settled", [](Parts& parts) { return parts.pool.Settled(); });
  }
  void SetCatalog(const std::vector<Entry>& entries) {
    Ask([&](Parts& parts) {
      parts.snapshot = MakeSnapshot(entries);
      for (const Entry& entry : entries) {
        parts.scripted.handles[entry.name] = entry.handles;
      }
      parts.pool.SetCatalog(parts.snapshot);
    });
  }
  void SetMode(Mode mode) {
    Ask([mode](Parts& parts) { parts.scripted.load = mode; });
  }
  void AnswerHeld() {
    Ask([](Parts& parts) { parts.scripted.AnswerHeld(); });
  }
  size_t Ready(const std::string& name = "a") {
    return Ask([&](Parts& parts) { return parts.pool.Ready(name); });
  }
  uint32_t GatesInUse() {
    return Ask([](Parts& parts) { return parts.gates.used(); });
  }
  void Wait(const std::string& name, uint64_t ticket) {
    Ask([&](Parts& parts) {
      parts.pool.TakeWhenLoaded(
          *parts.snapshot->Find(name), ticket, {},
          [&parts, ticket](absl::StatusOr<Instance> instance) {
            parts.served.emplace_back(ticket, instance.status().code());
            if (instance.ok()) {
              parts.instances.push_back(*std::move(instance));
            }
          });
    });
  }
  absl::StatusOr<Instance> Take(const std::string& name = "a") {
    return Ask([&](Parts& parts) {
      return parts.pool.TakeReady(*parts.snapshot->Find(name));
    });
  }
  auto Served() {
    return Ask([](Parts& parts) { return parts.served; });
  }
  // The programs that were asked for, in order.
  std::vector<std::string> Asked() {
    return Ask([](Parts& parts) {
      std::vector<std::string> names;
      for (const daemon::LoaderRequest& request : parts.scripted.requests()) {
        names.push_back(request.load().program());
      }
      return names;
    });
  }

  std::unique_ptr<Parts> parts_;
  std::thread thread_;
};

constexpr auto kOk = absl::StatusCode::kOk;

TEST_F(PoolTest, FillsToItsTargetsAndAgainAfterATake) {
  Start();
  SetCatalog({{"a", 3}, {"b", 1}, {"c", 0}});
  Settle();
  EXPECT_EQ(Ready("a"), 3u);
  EXPECT_EQ(Ready("b"), 1u);
  EXPECT_EQ(Ready("c"), 0u);
  EXPECT_EQ(GatesInUse(), 4u);
  const absl::StatusOr<Instance> taken = Take();
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->fds.size(), 2u);
  EXPECT_EQ(taken->digest, "digest 1");
  EXPECT_FALSE(
      Ask([&](Parts& parts) { return parts.gates.IsOpen(taken->gate); }));
  Settle();
  EXPECT_EQ(Ready("a"), 3u);
  EXPECT_EQ(GatesInUse(), 5u);
}

TEST_F(PoolTest, EmptyShelfAndUnknownProgramAreUnavailable) {
  Start();
  SetCatalog({{"a", 0}});
  EXPECT_EQ(Take().status().code(), absl::StatusCode::kUnavailable);
  const auto other = MakeSnapshot({{"b", 0}});
  Ask([&](Parts& parts) {
    EXPECT_FALSE(parts.pool.TakeReady(*other->Find("b")).ok());
    parts.pool.TakeWhenLoaded(
        *other->Find("b"), 1, {}, [&](absl::StatusOr<Instance> instance) {
          EXPECT_EQ(ReasonOf(instance.status()),
                    v1::REASON_PROGRAM_UNAVAILABLE);
          parts.served.emplace_back(1, instance.status().code());
        });
  });
  EXPECT_EQ(Served().size(), 1u);
}

TEST_F(PoolTest, InstancesAreNeverReused) {
  Start();
  SetCatalog({{"a", 2}});
  std::set<ino_t> maps;
  std::vector<Instance> kept;
  for (int i = 0; i < 10; ++i) {
    Settle();
    absl::StatusOr<Instance> instance = Take();
    ASSERT_TRUE(instance.ok());
    struct stat status {};
    ASSERT_EQ(fstat(instance->fds[1].get(), &status), 0);
    EXPECT_TRUE(maps.insert(status.st_ino).second);
    kept.push_back(*std::move(instance));
  }
}

TEST_F(PoolTest, InstancesAreReused_WithoutMitigation) {
  Start({1 << 20, 1000}, 1024, /*reuse=*/true);
  SetCatalog({{"a", 2}});
  Settle();
  const absl::StatusOr<Instance> one = Take();
  const absl::StatusOr<Instance> two = Take();
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(one->gate.nonce, two->gate.nonce);
}

TEST_F(PoolTest, WhoWaitsIsServedBeforeTheShelvesAreFilled) {
  Start();
  SetMode(Mode::kSilent);
  SetCatalog({{"a", 8}, {"b", 0}});
  WaitUntil("the pool loads",
            [](Parts& parts) { return parts.scripted.held() == 2; });
  Wait("b", 1);
  AnswerHeld();
  Settle();
  EXPECT_THAT(Served(), ElementsAre(std::pair(uint64_t{1}, kOk)));
  const std::vector<std::string> asked = Asked();
  // Behind the two that were under way.
  EXPECT_EQ(asked[2], "b");
  EXPECT_EQ(Ready("a"), 8u);
}

TEST_F(PoolTest, WhoWaitsLongestIsServedFirstWhateverTheProgram) {
  Start();
  SetMode(Mode::kSilent);
  SetCatalog({{"a", 0}, {"b", 0}});
  Wait("a", 1);
  Wait("a", 2);
  Wait("b", 3);
  Wait("a", 4);
  Wait("b", 5);
  WaitUntil("two are under way",
            [](Parts& parts) { return parts.scripted.held() == 2; });
  AnswerHeld();
  Settle();
  EXPECT_THAT(Asked(), ElementsAre("a", "a", "b", "a", "b"));
  EXPECT_EQ(Served().size(), 5u);
}

TEST_F(PoolTest, CancelledWaitIsAnsweredOnceAndItsInstanceIsKept) {
  Start();
  SetMode(Mode::kSilent);
  SetCatalog({{"a", 0}});
  Wait("a", 1);
  Wait("a", 2);
  Ask([](Parts& parts) {
    parts.pool.Cancel(1);
    parts.pool.Cancel(1);
    parts.pool.Cancel(99);
  });
  EXPECT_THAT(Served(), ElementsAre(std::pair(uint64_t{1},
                                              absl::StatusCode::kCancelled)));
  AnswerHeld();
  Settle();
  EXPECT_EQ(Served().size(), 2u);
  EXPECT_EQ(Ready(), 1u);
  EXPECT_EQ(GatesInUse(), 2u);
}

TEST_F(PoolTest, RefusalReachesAllWhoWaitAndIsTriedAgainLater) {
  Start();
  SetMode(Mode::kRefuse);
  SetCatalog({{"a", 2}});
  Settle();
  const size_t asked = Asked().size();
  EXPECT_LE(asked, 2u);
  EXPECT_EQ(GatesInUse(), 0u);
  Wait("a", 1);
  Settle();
  ASSERT_EQ(Served().size(), 1u);
  EXPECT_NE(Served()[0].second, kOk);
  SetMode(Mode::kAnswer);
  WaitUntil("it is filled after all",
            [](Parts& parts) { return parts.pool.Ready("a") == 2; });
}

// Something is let go of, and stays so.
class ShortPoolTest : public PoolTest {
 protected:
  void StartShort() {
    Start();
    SetCatalog({{"a", 0}, {"b", 0}});
    Ask([](Parts& parts) {
      parts.scripted.left = [](const auto&) { return "map 7"; };
      parts.remains.Add(*parts.gates.Allocate(), false,
                        parts.ledger.AddRetired({}, {}));
    });
    SetMode(Mode::kShort);
  }
  void WaitUntilAsked(size_t loads) {
    WaitUntil("it is tried again", [loads](Parts& parts) {
      return parts.scripted.CountLoads("a") >= loads;
    });
  }
};

TEST_F(ShortPoolTest, WhoWaitsIsServedOnceMemoryComesBack) {
  StartShort();
  Wait("a", 1);
  WaitUntilAsked(3);
  EXPECT_THAT(Served(), IsEmpty());
  SetMode(Mode::kAnswer);
  WaitUntil("it is served",
            [](Parts& parts) { return parts.served.size() == 1; });
  EXPECT_THAT(Served(), ElementsAre(std::pair(uint64_t{1}, kOk)));
  EXPECT_EQ(GatesInUse(), 2u);  // its own, and that of what was let go of
}

TEST_F(ShortPoolTest, ThoseOfAnotherProgramHaveTheirTurnMeanwhile) {
  StartShort();
  for (uint64_t ticket = 1; ticket <= 3; ++ticket) Wait("a", ticket);
  WaitUntilAsked(2);
  Wait("b", 4);
  WaitUntil("b is loaded, too",
            [](Parts& parts) { return parts.scripted.CountLoads("b") > 0; });
}

TEST_F(ShortPoolTest, WhoIsCancelledIsTriedForNoMore) {
  StartShort();
  Wait("a", 1);
  WaitUntilAsked(2);
  Ask([](Parts& parts) { parts.pool.Cancel(1); });
  EXPECT_THAT(Served(), ElementsAre(std::pair(uint64_t{1},
                                              absl::StatusCode::kCancelled)));
  Settle();
  const size_t asked = Asked().size();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(Asked().size(), asked);
}

TEST_F(PoolTest, ShortOfMemoryThatNobodyWillGiveBackIsSaidAtOnce) {
  Start();
  SetCatalog({{"a", 0}});
  SetMode(Mode::kShort);
  Wait("a", 1);
  WaitUntil("it is refused",
            [](Parts& parts) { return parts.served.size() == 1; });
  EXPECT_THAT(Served(), ElementsAre(std::pair(uint64_t{1},
                                              absl::StatusCode::kUnavailable)));
  EXPECT_EQ(Asked().size(), 1u);
}

TEST_F(PoolTest, OtherFdsThanTheCatalogsAreRefused) {
  for (const Mode mode : {Mode::kFewerFds, Mode::kMoreFds}) {
    TearDown();
    Start();
    SetMode(mode);
    SetCatalog({{"a", 0}});
    Wait("a", 1);
    Settle();
    ASSERT_EQ(Served().size(), 1u);
    EXPECT_EQ(Served()[0].second, absl::StatusCode::kInternal);
    EXPECT_EQ(GatesInUse(), 0u);
    EXPECT_EQ(Ready(), 0u);
  }
}

TEST_F(PoolTest, ReplacedProgramIsDiscardedReadyOrLoading) {
  Start();
  SetCatalog({{"a", 2}, {"b", 2}});
  Settle();
  SetMode(Mode::kSilent);
  ASSERT_TRUE(Take("a").ok());
  WaitUntil("one is loading",
            [](Parts& parts) { return parts.scripted.held() == 1; });
  SetCatalog({{"a", 2, "2"}, {"b", 2}});
  EXPECT_EQ(Ready("a"), 0u);
  EXPECT_EQ(Ready("b"), 2u);
  Wait("a", 1);
  AnswerHeld();
  Settle();
  EXPECT_EQ(Ask([](Parts& parts) { return parts.instances.at(0).digest; }),
            "digest 2");
  EXPECT_EQ(Ready("a"), 2u);
  // One taken of the old, one of the new, and four ready.
  EXPECT_EQ(GatesInUse(), 6u);
}

TEST_F(PoolTest, WhoWaitsForAWithdrawnProgramIsAnswered) {
  Start();
  SetMode(Mode::kSilent);
  SetCatalog({{"a", 0}});
  Wait("a", 1);
  SetCatalog({});
  ASSERT_EQ(Served().size(), 1u);
  EXPECT_NE(Served()[0].second, kOk);
  AnswerHeld();
  Settle();
  EXPECT_EQ(GatesInUse(), 0u);
}

// There and back while a load is under way: it was asked for by another shelf
// than the one that is there when it comes.
TEST_F(PoolTest, CatalogThatGoesAndComesBackWhileLoadingLoadsOn) {
  Start();
  SetMode(Mode::kSilent);
  SetCatalog({{"a", 2}});
  WaitUntil("two are loading",
            [](Parts& parts) { return parts.scripted.held() == 2; });
  SetCatalog({{"a", 2, "2"}});
  SetCatalog({{"a", 2, "1"}});
  AnswerHeld();
  Settle();
  WaitUntil("it is filled",
            [](Parts& parts) { return parts.pool.Ready("a") == 2; });
  EXPECT_EQ(GatesInUse(), 2u);
  Wait("a", 1);
  Settle();
  EXPECT_THAT(Served(), ElementsAre(std::pair(uint64_t{1}, kOk)));
}

TEST_F(PoolTest, ReadyInstancesStayWithinTheLimitOfBytes) {
  Start({350, 1000});
  SetCatalog({{"a", 10}});
  Settle();
  EXPECT_EQ(Ready(), 3u);
  // Who waits is served all the same, and nothing is loaded beyond that.
  Wait("a", 1);
  Settle();
  EXPECT_THAT(Served(), ElementsAre(std::pair(uint64_t{1}, kOk)));
  EXPECT_EQ(Ready(), 3u);
}

TEST_F(PoolTest, ReadyInstancesStayWithinTheLimitOfFds) {
  Start({1 << 20, 7});
  SetCatalog({{"a", 10}, {"b", 10}});
  Settle();
  // Two fds each, shared out evenly.
  EXPECT_EQ(Ready("a") + Ready("b"), 3u);
  EXPECT_GE(Ready("a"), 1u);
  EXPECT_GE(Ready("b"), 1u);
  SetCatalog({{"b", 10}});
  Settle();
  EXPECT_EQ(Ready("b"), 3u);
}

TEST_F(PoolTest, OutOfGatesIsBusy) {
  Start({1 << 20, 1000}, /*slots=*/2);
  SetCatalog({{"a", 0}});
  for (uint64_t ticket = 1; ticket <= 3; ++ticket) Wait("a", ticket);
  Settle();
  ASSERT_EQ(Served().size(), 3u);
  int served = 0;
  for (const auto& [ticket, code] : Served()) served += code == kOk;
  EXPECT_LE(served, 2);
  // What was under way for those who were refused is ready for the next.
  EXPECT_EQ(served + Ready(), 2u);
}

}  // namespace
}  // namespace bpfgrant::broker

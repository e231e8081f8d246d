// A broker without gRPC, in this process: all its real parts, on a loop in a
// thread of its own, with a scripted loader, a memfd for the gate map, and any
// defence switched off that a test wants off.

#ifndef TESTS_WIRE_BROKER_FIXTURE_H_
#define TESTS_WIRE_BROKER_FIXTURE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/broker/accept.h"
#include "daemon/broker/audit.h"
#include "daemon/broker/event_loop.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/grace_period.h"
#include "daemon/broker/granting.h"
#include "daemon/broker/keeping.h"
#include "daemon/broker/ledger.h"
#include "daemon/broker/loader_client.h"
#include "daemon/broker/pool.h"
#include "daemon/broker/remains.h"
#include "daemon/broker/service.h"
#include "daemon/broker/watchers.h"
#include "daemon/mitigations.h"
#include "gtest/gtest.h"
#include "tests/wire/raw_peer.h"
#include "tests/wire/scripted_loader.h"

namespace bpfgrant::broker_test {

// A program of the catalog. `version` stands for its bytes: digest and identity
// come from it.
struct TestProgram {
  std::string name = "sampler";
  int handles = 1;
  uint32_t pool = 4;
  std::string version = "1";
  std::vector<v1::Delivery> delivery = {v1::DELIVERY_PROGRAM,
                                        v1::DELIVERY_ATTACH};
  bool available = true;
  std::string description;
};
daemon::CatalogEntry Entry(const TestProgram& program);
// Allows everybody `program`.
daemon::CompiledRule Allow(const std::string& program, uint32_t quota);
daemon::Snapshot Catalog(const std::vector<TestProgram>& programs,
                         const std::vector<daemon::CompiledRule>& rules);
// `sampler` (program and one map) and `tap` (program alone), for everybody.
daemon::Snapshot DefaultCatalog();
// As the broker is given it.
std::shared_ptr<const broker::Snapshot> Read(const daemon::Snapshot& message);

struct BrokerSetup {
  daemon::Mitigations mitigations;
  bool grace_periods = true;  // somebody tells when they are over
  broker::AcceptLimits limits{8192, 8192, std::chrono::seconds(60)};
  broker::IdentifyBy identify = broker::IdentifyBy::kBest;
  std::optional<gid_t> administrator_group;
  uint32_t grants_per_session = 256;
  broker::PoolLimits pool{64 << 20, 4096};
  uint32_t gate_slots = 32768;
  daemon::Snapshot catalog = DefaultCatalog();
  ScriptedLoader::Mode load = ScriptedLoader::Mode::kAnswer;
  bool census = true;          // the loader can tell what is left
  std::string no_executables;  // why it cannot tell what clients execute
};

// What a refused request must leave as it was.
struct Holdings {
  size_t sessions = 0;
  size_t grants = 0;
  uint64_t total = 0;  // grants ever entered
  uint32_t gates = 0;  // slots in use
  size_t loads = 0;
  size_t attaches = 0;
  bool operator==(const Holdings&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Holdings& holdings);

class TestBroker {
 public:
  // Everything of the broker; to be touched on the loop's thread alone.
  struct Parts;

  // `witness`: see ScriptedLoader.
  TestBroker(BrokerSetup setup, int witness);
  ~TestBroker();

  const std::string& address() const { return address_; }

  // Runs `function(parts)` on the loop's thread and returns what it returns.
  template <typename Function>
  auto Ask(Function function) {
    using Result = decltype(function(*parts_));
    if constexpr (std::is_void_v<Result>) {
      Run([&] { function(*parts_); });
    } else {
      std::optional<Result> result;
      Run([&] { result.emplace(function(*parts_)); });
      return *std::move(result);
    }
  }
  // Asks again and again until `condition(parts)` holds; a failure if it never
  // does.
  void WaitUntil(const char* what,
                 const std::function<bool(Parts&)>& condition);
  // Until the pool is full and nobody is being served.
  void Settle();

  Holdings Look();
  // How often a call was refused with `reason`, as Status counts it.
  uint64_t Refusals(v1::Reason reason);
  // Sees the slots as a program in the kernel would.
  uint64_t Slot(uint32_t slot) const;
  size_t OpenGates() const;
  // CPU time that the loop's thread has used so far.
  std::chrono::microseconds LoopTime() const;
  // Replaces catalog and policy as a reload does; how many grants it ended.
  uint32_t Replace(const daemon::Snapshot& snapshot);

 private:
  void Run(const std::function<void()>& work);

  std::string address_;
  bpfgrant_gate_entry* slots_ = nullptr;
  const uint32_t slot_count_;
  std::unique_ptr<Parts> parts_;
  std::thread thread_;
};

struct TestBroker::Parts {
  broker::Session* FindSession(uint64_t id);

  Parts(BrokerSetup setup, UniqueFd loader_end, UniqueFd broker_end,
        UniqueFd gate_map, UniqueFd listener, int witness);

  const daemon::Mitigations mitigations;
  broker::EventLoop loop;
  ScriptedLoader scripted;
  bool loader_lost = false;
  broker::LoaderClient loader;
  broker::Gates gates;
  broker::GracePeriod grace_period;
  broker::Executables executables;
  broker::Ledger ledger;
  broker::Remains remains;
  broker::Watchers watchers;
  broker::Pool pool;
  std::vector<v1::AuditRecord> records;  // the audit trail
  broker::Audit audit;
  broker::Keeping keeping;
  broker::Granting granting;
  broker::Rotations rotations;
  broker::Service service;
  broker::Acceptor acceptor;
};

// Counts this process's open fds.
size_t CountOpenFds();

// Base of the tests: whatever they do, when all is over every fd that there was
// is closed, in this process and in flight.
class WireTest : public ::testing::Test {
 protected:
  WireTest();
  void TearDown() override;

  // The broker; a second one takes the place of the first.
  TestBroker& Start(BrokerSetup setup = {});
  TestBroker& broker() { return *broker_; }
  // With one defence off.
  TestBroker& StartWithout(bool daemon::Mitigations::*defence,
                           BrokerSetup setup = {});

  RawPeer Connect(User user = Ordinary()) {
    return RawPeer(broker_->address(), user);
  }
  // With the Hello said.
  RawPeer Open(User user = Ordinary());
  // That somebody polite gets a program now.
  void ExpectPoliteIsServed();
  // That nothing is left of any session; closes `peers` first.
  void ExpectNothingLeft();
  // An fd to send along, which counts for the check at the end.
  UniqueFd Sendable() const;

 private:
  size_t fds_before_;
  UniqueFd witness_;   // duplicated into everything that travels
  UniqueFd observer_;  // sees when the last duplicate is closed
  std::unique_ptr<TestBroker> broker_;
};

}  // namespace bpfgrant::broker_test

#endif  // TESTS_WIRE_BROKER_FIXTURE_H_

// A daemon on a system bus of the test's own.

#ifndef TESTS_E2E_BUS_FIXTURE_H_
#define TESTS_E2E_BUS_FIXTURE_H_

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bpfgrant/connection.h"
#include "gtest/gtest.h"
#include "tests/e2e/private_bus.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/process_tree.h"

namespace bpfgrant::test {

// Allows kOperator `action`, and nobody else anything.
inline std::string Allowing(const std::string& action) {
  return absl::StrCat(
      "polkit.addRule(function(action, subject) {\n"
      "  return action.id == '",
      action,
      "' && subject.user == 'operator-of-test' ? polkit.Result.YES : "
      "polkit.Result.NO;\n});\n");
}

// Everybody but kStranger may sample.
inline constexpr char kBusPolicy[] = R"(
rule {
  name: "sampling"
  effect: ALLOW
  everyone: true
  program: "packet_sampler"
  quota { grants: 4096 }
  trusted: true
}
rule { name: "no-stranger" effect: DENY user: "64802" program: "*" }
)";

class BusTest : public DaemonTest {
 protected:
  void SetUp() override {
    DaemonTest::SetUp();
    if (IsSkipped()) return;
    const absl::Status status = bus_.Start(kBrokerUser);
    ASSERT_TRUE(status.ok()) << status;
  }
  void TearDown() override {
    connection_.reset();
    DaemonTest::TearDown();
  }

  // The daemon, and a connection of root's to its socket; waits until it is on
  // the bus.
  void Start(DaemonOptions options = {}) {
    ASSERT_NO_FATAL_FAILURE(Launch(std::move(options)));
    ExpectOnBus();
  }
  void StartWithout(const std::string& mitigation) {
    DaemonOptions options;
    options.without = {mitigation};
    Start(std::move(options));
  }
  void Launch(DaemonOptions options = {}) {
    if (options.policy.empty()) options.policy = kBusPolicy;
    options.programs = {"packet_sampler"};
    options.environment.push_back(bus_.variable());
    ASSERT_TRUE(StartDaemon(options));
    auto connection = Connection::Connect({.path = daemon().broker_socket()});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_.emplace(*std::move(connection));
  }
  void StartPolkit(const std::string& rules) {
    const absl::Status status = bus_.StartPolkit(rules);
    ASSERT_TRUE(status.ok()) << status;
  }

  PrivateBus& bus() { return bus_; }
  Connection& connection() { return *connection_; }
  Grant Acquire() {
    auto grant = connection_->Acquire(
        {.program = "packet_sampler", .interface = "packet_sampler/1"});
    EXPECT_TRUE(grant.ok()) << grant.status();
    return *std::move(grant);
  }
  // What Status says of the bus.
  std::string Where() {
    const auto status = connection_->Status();
    EXPECT_TRUE(status.ok()) << status.status();
    return status.ok() ? status->bus() : "";
  }
  void ExpectOnBus() { ExpectWhere("org.bpfgrant1"); }
  void ExpectWhere(const std::string& where) {
    EXPECT_TRUE(
        WaitUntil([&] { return Where() == where; }, std::chrono::seconds(40)))
        << Where();
  }
  Outcome RevokeProgram(uid_t uid, const std::string& program) {
    return bus_.Call(uid, "Revoke", {"ss", "program", program});
  }
  // Those that live.
  size_t Grants() {
    const auto grants = connection_->Grants();
    EXPECT_TRUE(grants.ok()) << grants.status();
    if (!grants.ok()) return 0;
    size_t live = 0;
    for (const v1::GrantInfo& grant : grants->grant()) {
      live += grant.ended() == v1::REASON_UNSPECIFIED;
    }
    return live;
  }

 private:
  PrivateBus bus_;
  std::optional<Connection> connection_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_E2E_BUS_FIXTURE_H_

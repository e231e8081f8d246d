#include "tests/harness/as_nobody.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/probe_privilege.h"
#include "tests/harness/skip.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

// That it is set makes the process nobody.
constexpr char kSocket[] = "BPFGRANT_TEST_BROKER_SOCKET";

// Before gtest lists or runs anything.
const char* const given_socket = [] {
  const char* path = std::getenv(kSocket);
  if (path != nullptr) AssertUnprivileged();
  return path;
}();

using Fds = std::vector<std::pair<int, int>>;

void Execute(const std::string& broker_socket, const Fds& fds) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  UnprivilegedOptions options;
  options.timeout = std::chrono::minutes(4);
  options.fds = fds;
  options.environment = {absl::StrCat(kSocket, "=", broker_socket)};
  const Outcome outcome =
      RunUnprivileged(std::filesystem::read_symlink("/proc/self/exe").string(),
                      {absl::StrCat("--gtest_filter=", test->test_suite_name(),
                                    ".", test->name())},
                      options);
  // CTest would take these words for this process's own.
  const std::string told = absl::StrReplaceAll(
      outcome.Describe(), {{"[  SKIPPED ]", "[ skipped ]"}});
  EXPECT_TRUE(outcome.ok()) << told;
  EXPECT_NE(outcome.output.find("[       OK ]"), std::string::npos) << told;
}

}  // namespace

const char* SocketForNobody() { return given_socket; }

void RunThisTestAsNobody(const std::string& program, const Fds& fds,
                         const std::string& policy,
                         const std::vector<std::string>& without) {
  const char* shared = std::getenv("BPFGRANT_TEST_SHARED_DAEMON");
  if (shared != nullptr && policy.empty() && without.empty()) {
    std::string socket;
    std::getline(std::ifstream(shared), socket);
    ASSERT_NE(socket, "") << shared << ": there is no daemon";
    return Execute(socket, fds);
  }
  auto daemon = Daemon::Start({.policy = policy.empty() ? kAllowAll : policy,
                               .config = kNothingAhead,
                               .programs = {program},
                               .without = without});
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  Execute((*daemon)->broker_socket(), fds);
  const absl::Status stopped = (*daemon)->Stop();
  EXPECT_TRUE(stopped.ok()) << stopped;
}

void NobodyTest::SetUp() {
  if (IsNobody()) {
    auto connection = Connection::Connect({.path = SocketForNobody()});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = std::make_unique<Connection>(*std::move(connection));
    return;
  }
  BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON);
  const Fds fds = FdsForNobody();
  if (!HasFatalFailure()) {
    RunThisTestAsNobody(program_, fds, Policy(), Without());
  }
}

}  // namespace bpfgrant::test

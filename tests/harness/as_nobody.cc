#include "tests/harness/as_nobody.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
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

}  // namespace

const char* SocketForNobody() { return given_socket; }

void RunThisTestAsNobody(const std::string& broker_socket) {
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  UnprivilegedOptions options;
  options.timeout = std::chrono::minutes(4);
  options.environment = {absl::StrCat(kSocket, "=", broker_socket)};
  const Outcome outcome =
      RunUnprivileged(std::filesystem::read_symlink("/proc/self/exe").string(),
                      {absl::StrCat("--gtest_filter=", test->test_suite_name(),
                                    ".", test->name())},
                      options);
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_NE(outcome.output.find("[       OK ]"), std::string::npos)
      << outcome.Describe();
}

void NobodyTest::SetUp() {
  if (IsNobody()) {
    auto connection = Connection::Connect({.path = SocketForNobody()});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = std::make_unique<Connection>(*std::move(connection));
    return;
  }
  BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON);
  auto daemon = Daemon::Start(options_);
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  ASSERT_NO_FATAL_FAILURE(Prepare(**daemon));
  RunThisTestAsNobody((*daemon)->broker_socket());
  const absl::Status stopped = (*daemon)->Stop();
  EXPECT_TRUE(stopped.ok()) << stopped;
}

}  // namespace bpfgrant::test

#include "tests/loop/place.h"

#include <stdlib.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/probe_privilege.h"
#include "tests/harness/skip.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

// Where nobody finds the daemon. That it is set makes the process nobody.
constexpr char kSocket[] = "BPFGRANT_TEST_BROKER_SOCKET";

// Before gtest lists or runs anything.
const char* const broker_socket = [] {
  const char* path = std::getenv(kSocket);
  if (path != nullptr) AssertUnprivileged();
  return path;
}();

}  // namespace

void PlaceTest::SetUp() {
  if (!InKernel()) return;
  if (broker_socket != nullptr) {
    auto connection = Connection::Connect({.path = broker_socket});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = std::make_unique<Connection>(*std::move(connection));
    return;
  }
  in_place_ = false;
  BPFGRANT_REQUIRE_KERNEL(KernelHasLoops(),
                          "io_uring loops (struct io_uring_bpf_ops)");
  BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE);
  RunAsNobody();
}

void PlaceTest::RunAsNobody() {
  auto daemon = Daemon::Start(
      {.policy = kAllowAll, .config = kNothingAhead, .programs = {program_}});
  ASSERT_TRUE(daemon.ok()) << daemon.status();
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  UnprivilegedOptions options;
  options.timeout = std::chrono::minutes(4);
  options.environment = {
      absl::StrCat(kSocket, "=", (*daemon)->broker_socket())};
  const Outcome outcome =
      RunUnprivileged(std::filesystem::read_symlink("/proc/self/exe").string(),
                      {absl::StrCat("--gtest_filter=", test->test_suite_name(),
                                    ".", test->name())},
                      options);
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_NE(outcome.output.find("[       OK ]"), std::string::npos)
      << outcome.Describe();
  const absl::Status stopped = (*daemon)->Stop();
  EXPECT_TRUE(stopped.ok()) << stopped;
}

absl::StatusOr<Loop> PlaceTest::Create(Loop::Options options) {
  options.where =
      InKernel() ? Loop::Where::kKernelOnly : Loop::Where::kProcessOnly;
  auto loop = Loop::Create(connection_.get(), options);
  // REASON_BUSY says to try again; an emulated machine can be busy for long.
  for (int i = 0; i < 5 && absl::IsUnavailable(loop.status()); ++i) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    loop = Loop::Create(connection_.get(), options);
  }
  if (loop.ok()) {
    EXPECT_EQ(loop->place(), GetParam());
  }
  return loop;
}

Folder::Folder() {
  std::string name = ::testing::TempDir() + "bpfgrant-loop.XXXXXX";
  EXPECT_NE(mkdtemp(name.data()), nullptr) << name;
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Folder::Write(const std::string& name,
                          const std::string& content) const {
  std::string path = File(name);
  std::ofstream file(path, std::ios::binary);
  file << content;
  EXPECT_TRUE(file.good()) << path;
  return path;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

}  // namespace bpfgrant::test

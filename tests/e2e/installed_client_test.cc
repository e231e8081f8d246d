// What is installed for authors of clients: examples are built outside of this
// tree from a private installation, by pkg-config and by CMake, in C and in
// C++, and run as nobody with a real daemon. So is the client in Python.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/probe_privilege.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

constexpr char kSampled[] = "sent 64, received 64, sampled 64, wrong 0";

// By the shell, with its output if it fails.
void Shell(const std::string& command) {
  FILE* pipe = popen(absl::StrCat("{ ", command, "; } 2>&1").c_str(), "re");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  std::array<char, 4096> part;
  size_t size;
  while ((size = fread(part.data(), 1, part.size(), pipe)) > 0) {
    output.append(part.data(), size);
  }
  ASSERT_EQ(pclose(pipe), 0) << command << "\n" << output;
}

// One installation for all cases of this process; CTest runs them as one.
class InstalledClientTest : public DaemonTest {
 protected:
  static void SetUpTestSuite() {
    folder_.emplace();
    Shell(absl::StrCat("for part in library dev python; do cmake --install ",
                       BUILD_FOLDER, " --prefix ", Prefix(),
                       " --component $part; done"));
  }
  static void TearDownTestSuite() { folder_.reset(); }

  void SetUp() override {
    DaemonTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_TRUE(StartDaemon({.policy = kAllowAll,
                             .config = kNothingAhead,
                             .programs = {"packet_sampler"}}));
  }

  static std::string Prefix() { return folder_->path() / "usr"; }
  static std::string Library() { return absl::StrCat(Prefix(), "/", LIB_DIR); }
  static std::string Examples() {
    return absl::StrCat(Prefix(), "/", DOC_DIR, "/examples");
  }
  static std::string Built(const std::string& name) {
    return folder_->path() / name;
  }
  static std::string PkgConfig() {
    return absl::StrCat("PKG_CONFIG_PATH=", Library(), "/pkgconfig pkg-config");
  }

  UnprivilegedOptions Options() const {
    UnprivilegedOptions options;
    options.environment = {
        absl::StrCat("LD_LIBRARY_PATH=", Library()),
        absl::StrCat("PYTHONPATH=", Prefix(), "/lib/python3/dist-packages"),
        "PYTHONDONTWRITEBYTECODE=1"};
    return options;
  }

  // Starts what samples its own packets, and waits until it has; it waits for
  // the end then.
  void Sample(const std::string& binary, std::vector<std::string> arguments) {
    arguments.push_back(daemon().broker_socket());
    auto client = UnprivilegedProcess::Spawn(binary, arguments, Options());
    ASSERT_TRUE(client.ok()) << client.status();
    client_.emplace(*std::move(client));
    const auto line = client_->WaitForLine("sent", std::chrono::seconds(20));
    if (!line.ok()) {
      client_->CloseInput();
      FAIL() << line.status() << client_->Wait().Describe();
    }
    EXPECT_EQ(*line, kSampled);
    std::ifstream status(absl::StrCat("/proc/", client_->pid(), "/status"));
    EXPECT_EQ(PrivilegeIn({std::istreambuf_iterator<char>(status), {}}), "");
  }
  void ExpectsRelease() {
    client_->CloseInput();
    const Outcome outcome = client_->Wait();
    EXPECT_TRUE(outcome.ok()) << outcome.Describe();
    EXPECT_THAT(outcome.output, HasSubstr("released\n"));
  }
  // By a reload after which the catalog has the program no more.
  void ExpectsRevocation() {
    std::filesystem::remove(daemon().catalog_directory() /
                            "packet_sampler.manifest");
    ASSERT_TRUE(daemon().Reload().ok());
    // Before its standard input ends, which Wait sees to.
    const auto line = client_->WaitForLine("ended", std::chrono::seconds(20));
    const Outcome outcome = client_->Wait();
    EXPECT_TRUE(outcome.ok()) << outcome.Describe();
    EXPECT_EQ(line.ok() ? *line : line.status().ToString(), "ended: withdrawn");
  }

  static inline std::optional<PrivateFolder> folder_;
  std::optional<UnprivilegedProcess> client_;
};

TEST_F(InstalledClientTest, InCByPkgConfig) {
  Shell(absl::StrCat("cc -std=c11 -Wall -Wextra -Werror -D_GNU_SOURCE ",
                     Examples(), "/sampler.c -o ", Built("sampler"), " $(",
                     PkgConfig(), " --cflags --libs bpfgrant)"));
  Sample(Built("sampler"), {});
  ExpectsRelease();
  // Too late, and again.
  Sample(Built("sampler"), {});
  ExpectsRevocation();
  const Outcome refused =
      RunUnprivileged(Built("sampler"), {daemon().broker_socket()}, Options());
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.errors, HasSubstr("(unknown-program)"));
}

TEST_F(InstalledClientTest, InCAndCxxByCMake) {
  Shell(absl::StrCat("cmake -G Ninja -DCMAKE_BUILD_TYPE=Debug -S ", Examples(),
                     " -B ", Built("build"), " -Dbpfgrant_ROOT=", Prefix(),
                     " && cmake --build ", Built("build")));
  Sample(Built("build/sampler"), {});
  ExpectsRelease();
  const Outcome programs = RunUnprivileged(
      Built("build/programs"), {daemon().broker_socket()}, Options());
  EXPECT_TRUE(programs.ok()) << programs.Describe();
  EXPECT_THAT(programs.output, HasSubstr("packet_sampler/1: The first bytes"));
  EXPECT_THAT(programs.output, HasSubstr("config: 0 bytes of one in 0\n"));
}

TEST_F(InstalledClientTest, InCxxByPkgConfig) {
  Shell(absl::StrCat("c++ -std=c++20 ", Examples(), "/programs.cc -o ",
                     Built("programs"), " $(", PkgConfig(),
                     " --cflags --libs bpfgrant++)"));
  const Outcome programs =
      RunUnprivileged(Built("programs"), {daemon().broker_socket()}, Options());
  EXPECT_TRUE(programs.ok()) << programs.Describe();
}

TEST_F(InstalledClientTest, InPython) {
  const std::string example = absl::StrCat(Examples(), "/sampler.py");
  Sample("/usr/bin/python3", {example});
  ExpectsRelease();
  Sample("/usr/bin/python3", {example});
  ExpectsRevocation();
  const Outcome refused = RunUnprivileged(
      "/usr/bin/python3", {example, daemon().broker_socket()}, Options());
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.errors, HasSubstr("(unknown-program)"));
}

}  // namespace
}  // namespace bpfgrant::test

// `bpfgrantctl check` as scripts use it: without a daemon, as root and as
// nobody, in a bare chroot, with exit codes that can be relied on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/check.pb.h"
#include "google/protobuf/util/json_util.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using Words = std::vector<std::string>;

constexpr int kRefused = 1, kUsage = 2, kLate = 3;
constexpr char kKernelsBtf[] = "/sys/kernel/btf/vmlinux";

// The filters that every kernel takes, in a folder of root's.
class CheckVerbTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "privilege: CAP_BPF";
    Copy("packet_sampler");
    Copy("reuseport_steer");
  }
  void Copy(const std::string& name) {
    for (const char* suffix : {".manifest", ".bpf.o"}) {
      std::filesystem::copy(absl::StrCat(CATALOG_FOLDER, "/", name, suffix),
                            folder_);
    }
  }
  // As root with all its rights, or as nobody.
  Outcome Check(Words words, bool as_root = true) {
    words.insert(words.begin(), {"check", "--catalog", folder_.string()});
    if (!as_root) return RunUnprivileged(BPFGRANTCTL_PATH, words);
    std::string command = BPFGRANTCTL_PATH;
    for (const std::string& word : words) absl::StrAppend(&command, " ", word);
    return AsRoot(command);
  }
  // Without the shell's words on it: nothing of these needs quoting.
  Outcome AsRoot(const std::string& command) {
    const std::string errors = folder_ / "errors";
    FILE* pipe = popen(absl::StrCat(command, " 2>", errors).c_str(), "r");
    Outcome outcome;
    char buffer[4096];
    while (const size_t length = fread(buffer, 1, sizeof(buffer), pipe)) {
      outcome.output.append(buffer, length);
    }
    const int status = pclose(pipe);
    if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
    std::ifstream file(errors);
    outcome.errors.assign(std::istreambuf_iterator<char>(file), {});
    return outcome;
  }
  void Approve(const std::string& text) {
    const std::string path = folder_ / "other.manifest";
    std::ofstream(path) << text;
    chmod(path.c_str(), 0644);
  }
  static v1::CheckReply Parse(const std::string& json) {
    v1::CheckReply reply;
    const auto status =
        google::protobuf::util::JsonStringToMessage(json, &reply);
    EXPECT_TRUE(status.ok()) << json;
    return reply;
  }

  const PrivateFolder private_;
  const std::filesystem::path folder_ = private_.path();
};

TEST_F(CheckVerbTest, LoadsAsRoot) {
  const Outcome outcome = Check({});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.Describe();
  EXPECT_THAT(outcome.errors, IsEmpty());
  EXPECT_THAT(outcome.output, HasSubstr("each was loaded on trial"));
  EXPECT_THAT(outcome.output, HasSubstr("2 of 2 programs can be used."));
  EXPECT_THAT(outcome.output, Not(HasSubstr("Not looked at")));
  const v1::CheckReply reply = Parse(Check({"--json"}).output);
  EXPECT_TRUE(reply.loaded());
  ASSERT_EQ(reply.program_size(), 2);
  EXPECT_TRUE(reply.program(0).variant(0).chosen());
}

TEST_F(CheckVerbTest, SaysWhatNobodyCannotLearn) {
  const Outcome outcome = Check({}, false);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.Describe();
  EXPECT_THAT(outcome.output, HasSubstr("would be chosen"));
  EXPECT_THAT(outcome.output, HasSubstr("2 of 2 programs could be used."));
  EXPECT_THAT(outcome.output, HasSubstr("takes CAP_BPF and CAP_PERFMON"));
}

TEST_F(CheckVerbTest, AnotherKernelsBtfNeedsNoPrivilege) {
  const Outcome outcome = Check({"--btf", kKernelsBtf}, false);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.Describe();
  EXPECT_THAT(outcome.output, HasSubstr("Kernel: /sys/kernel/btf/vmlinux"));
  EXPECT_THAT(outcome.output, HasSubstr("the kernel has to run"));
}

TEST_F(CheckVerbTest, ExitCodes) {
  EXPECT_EQ(Check({"packet_sampler"}).exit_code, 0);
  const Outcome unknown = Check({"absent", "--json"});
  EXPECT_EQ(unknown.exit_code, kRefused);
  EXPECT_THAT(unknown.output, HasSubstr("REASON_UNKNOWN_PROGRAM"));
  Approve("name: \"other\" object: 7");
  const Outcome broken = Check({});
  EXPECT_EQ(broken.exit_code, kRefused);
  EXPECT_THAT(broken.output, HasSubstr("other.manifest:1:"));
  EXPECT_THAT(broken.output, HasSubstr("2 of 3 programs can be used."));
  EXPECT_EQ(Check({"packet_sampler"}).exit_code, 0);
  for (const Words& words : {Words{"--btf", "/dev/null"},
                             {"--btf", "/nowhere"},
                             {"--btf", "/tmp"},
                             {"--btf", BPFGRANTCTL_PATH},
                             {"--catalog", "/nowhere"},
                             {"--nothing"}}) {
    const Outcome outcome = Check(words);
    EXPECT_EQ(outcome.exit_code, kUsage) << outcome.Describe();
    EXPECT_THAT(outcome.errors, HasSubstr("bpfgrantctl: "));
  }
  EXPECT_EQ(Check({"--timeout", "0.001"}).exit_code, kLate);
}

// As while a package is installed into an image: no /proc, no /sys, no daemon.
TEST_F(CheckVerbTest, WorksWithoutProcAndSys) {
  const std::string bare =
      "unshare --mount sh -c 'mount -t tmpfs none /proc && "
      "mount -t tmpfs none /sys && ";
  const std::string tool =
      absl::StrCat(BPFGRANTCTL_PATH, " check --catalog ", folder_.string());
  const Outcome outcome = AsRoot(absl::StrCat(bare, tool, "'"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.Describe();
  EXPECT_THAT(outcome.output, HasSubstr("2 of 2 programs can be used."));
  // Who cannot load learns why the kernel cannot be asked either.
  const Outcome nobody = AsRoot(absl::StrCat(
      bare, "setpriv --reuid 65534 --regid 65534 --clear-groups ", tool, "'"));
  EXPECT_EQ(nobody.exit_code, 0) << nobody.Describe();
  EXPECT_THAT(nobody.output, HasSubstr("this kernel shows no BTF"));
  Copy("chain");
  const Outcome loop = AsRoot(absl::StrCat(bare, tool, " chain'"));
  EXPECT_EQ(loop.exit_code, kRefused);
  EXPECT_THAT(loop.output, HasSubstr("linking a loop needs /proc"));
}

}  // namespace
}  // namespace bpfgrant::test

// What this kernel takes of the programs that are shipped and of the tests'
// own, beside what is expected of it, what its BTF tells, and what is left of
// having tried it all.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "daemon/loader/catalog_check.h"
#include "tests/harness/kernel_objects.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/skip.h"

namespace bpfgrant::test {
namespace {

// "6.12" of "6.12.43+deb12-cloud-amd64".
std::string KernelSeries() {
  utsname name;
  uname(&name);
  const std::string release = name.release;
  const size_t dot = release.find('.', release.find('.') + 1);
  return release.substr(0, dot);
}

// By program, of the column of this kernel; empty if it has none.
std::map<std::string, std::string> ExpectedHere() {
  std::map<std::string, std::string> expected;
  std::ifstream file(TABLE_FILE);
  std::string line, word;
  int column = -1;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string program;
    words >> program;
    if (program == "#" || program.empty()) continue;
    for (int i = 0; words >> word; ++i) {
      if (program == "program" && word == KernelSeries()) column = i;
      if (program != "program" && i == column) expected[program] = word;
    }
  }
  return expected;
}

class KernelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_PERFMON);
    // Where the build stands, others may be able to write.
    for (const char* from : {SHIPPED_CATALOG, TEST_CATALOG}) {
      for (const auto& file : std::filesystem::directory_iterator(from)) {
        if (file.is_regular_file()) std::filesystem::copy(file, folder_);
      }
    }
  }
  v1::CheckReply Check(const std::string& btf = "") {
    daemon::CheckOptions options;
    options.folders = {folder_.string()};
    options.btf_file = btf;
    const auto reply = daemon::CheckCatalog(options);
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply.ok() ? *reply : v1::CheckReply();
  }

  const test::PrivateFolder private_;
  const std::filesystem::path folder_ = private_.path();
};

// As table.txt has it.
std::string ChosenOf(const v1::CheckedProgram& program) {
  for (const v1::CheckedVariant& variant : program.variant()) {
    if (variant.chosen())
      return variant.name().empty() ? "yes" : variant.name();
  }
  return "-";
}

TEST_F(KernelsTest, TakeTheVariantsThatTheTableSays) {
  const v1::CheckReply reply = Check();
  EXPECT_TRUE(reply.loaded());
  std::map<std::string, std::string> found;
  for (const v1::CheckedProgram& program : reply.program()) {
    found[program.name()] = ChosenOf(program);
    // ./check makes a table of them.
    std::printf("chosen: %s %s\n", program.name().c_str(),
                found[program.name()].c_str());
  }
  const auto expected = ExpectedHere();
  if (expected.empty()) {
    GTEST_SKIP() << "kernel: " << KernelSeries() << " has no column in "
                 << TABLE_FILE;
  }
  EXPECT_EQ(found, expected) << "if that is right, change " << TABLE_FILE;
}

// What the BTF is against, the kernel refuses; what the kernel takes, the BTF
// is not against.
TEST_F(KernelsTest, ForetellRightly) {
  const v1::CheckReply tried = Check();
  const v1::CheckReply foretold = Check("/sys/kernel/btf/vmlinux");
  EXPECT_TRUE(tried.loaded());
  EXPECT_FALSE(foretold.loaded());
  ASSERT_EQ(tried.program_size(), foretold.program_size());
  int taken = 0;
  for (int i = 0; i < tried.program_size(); ++i) {
    const v1::CheckedProgram& program = tried.program(i);
    ASSERT_EQ(program.variant_size(), foretold.program(i).variant_size());
    for (int j = 0; j < program.variant_size(); ++j) {
      const v1::CheckedVariant& is = program.variant(j);
      const v1::CheckedVariant& was = foretold.program(i).variant(j);
      EXPECT_TRUE(was.fits() || !is.fits())
          << program.name() << " " << was.name() << ": " << was.refusal();
      // What it needs it says beforehand.
      if (is.reason() == v1::REASON_KERNEL_TOO_OLD) {
        EXPECT_EQ(was.refusal(), is.refusal());
      }
      taken += is.fits() ? 1 : 0;
    }
  }
  EXPECT_GT(taken, 0);
}

// The ladder's third variant says nothing of what it needs: the verifier finds
// out, and so does who reads the BTF.
TEST_F(KernelsTest, ForetellWhatTheManifestDoesNotSay) {
  for (const std::string btf : {"", "/sys/kernel/btf/vmlinux"}) {
    const v1::CheckReply reply = Check(btf);
    for (const v1::CheckedProgram& program : reply.program()) {
      if (program.name() != "ladder") continue;
      const v1::CheckedVariant& newish = program.variant(2);
      ASSERT_EQ(newish.name(), "newish");
      EXPECT_EQ(newish.fits(), KernelSeries() != "6.1") << newish.refusal();
      EXPECT_EQ(
          newish.refusal().find("'bpf_dynptr_from_skb'") == std::string::npos,
          newish.fits());
    }
  }
}

TEST_F(KernelsTest, NothingIsLeftOfACheck) {
  BPFGRANT_REQUIRE_CAPABILITIES(CAP_SYS_ADMIN);
  const auto before = ListKernelObjects();
  ASSERT_TRUE(before.ok()) << before.status();
  EXPECT_GT(Check().program_size(), 0);
  const auto after = ListKernelObjects();
  ASSERT_TRUE(after.ok()) << after.status();
  const auto left =
      WaitUntilGone(after->Without(*before), std::chrono::seconds(20));
  ASSERT_TRUE(left.ok()) << left.status();
  EXPECT_TRUE(left->empty()) << left->Describe();
}

}  // namespace
}  // namespace bpfgrant::test

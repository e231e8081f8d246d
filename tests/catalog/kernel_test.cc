#include "daemon/loader/kernel.h"

#include <gtest/gtest.h>
#include <sys/utsname.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kDynamic[] = "#1 SMP PREEMPT_DYNAMIC Debian 6.12";

class KernelTest : public ::testing::Test {
 protected:
  void Put(const std::string& path, const std::string& text) {
    const std::filesystem::path whole = root_.path() + path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole) << text;
  }
  Preemption Read(const std::string& version) {
    return ReadPreemption(root_.path(), "6.12", version);
  }
  TemporaryFolder root_;
};

TEST_F(KernelTest, DebugfsComesFirst) {
  Put("/sys/kernel/debug/sched/preempt", "none voluntary (full) lazy\n");
  Put("/proc/cmdline", "quiet preempt=none\n");
  const Preemption found = Read(kDynamic);
  EXPECT_EQ(found.model, "full");
  EXPECT_TRUE(found.preemptible);
  EXPECT_EQ(found.evidence, "/sys/kernel/debug/sched/preempt");
}

TEST_F(KernelTest, DebugfsSaysNone) {
  Put("/sys/kernel/debug/sched/preempt", "(none) voluntary full\n");
  EXPECT_FALSE(Read(kDynamic).preemptible);
}

TEST_F(KernelTest, UnknownModelIsPreemptible) {
  Put("/sys/kernel/debug/sched/preempt", "none (brisk)\n");
  const Preemption found = Read(kDynamic);
  EXPECT_TRUE(found.preemptible);
  EXPECT_EQ(found.model, "brisk");
}

TEST_F(KernelTest, CommandLineOverridesConfiguration) {
  Put("/proc/cmdline", "quiet preempt=none preempt=full -- preempt=none\n");
  Put("/boot/config-6.12", "CONFIG_PREEMPT_VOLUNTARY=y\n");
  const Preemption found = Read(kDynamic);
  EXPECT_EQ(found.model, "full");
  EXPECT_EQ(found.evidence, "/proc/cmdline");
}

TEST_F(KernelTest, LazyKernelMayIgnoreNone) {
  Put("/proc/cmdline", "preempt=none\n");
  Put("/boot/config-6.12", "CONFIG_PREEMPT_LAZY=y\n");
  const Preemption found = Read(kDynamic);
  EXPECT_EQ(found.model, "lazy");
  EXPECT_TRUE(found.preemptible);
}

TEST_F(KernelTest, ConfigurationSaysTheDefault) {
  Put("/proc/cmdline", "quiet\n");
  Put("/lib/modules/6.12/config",
      "# CONFIG_PREEMPT_NONE is not set\nCONFIG_PREEMPT_VOLUNTARY=y\n");
  const Preemption found = Read(kDynamic);
  EXPECT_EQ(found.model, "voluntary");
  EXPECT_FALSE(found.preemptible);
  EXPECT_EQ(found.evidence, "/lib/modules/6.12/config");
}

TEST_F(KernelTest, RealTimeOutweighsTheModelBesideIt) {
  Put("/proc/config.gz", "CONFIG_PREEMPT_LAZY=y\nCONFIG_PREEMPT_RT=y\n");
  EXPECT_EQ(Read(kDynamic).model, "rt");
}

TEST_F(KernelTest, WhatCannotBeToldIsUnknownAndPreemptible) {
  const Preemption found = Read(kDynamic);
  EXPECT_EQ(found.model, "unknown");
  EXPECT_TRUE(found.preemptible);
  EXPECT_NE(found.evidence.find("PREEMPT_DYNAMIC"), std::string::npos);
}

TEST_F(KernelTest, WithoutDynamicUnameTells) {
  EXPECT_EQ(Read("#1 SMP PREEMPT Debian").model, "full");
  EXPECT_TRUE(Read("#1 SMP PREEMPT_RT Debian").preemptible);
  const Preemption found = Read("#1 SMP Debian 6.12");
  EXPECT_EQ(found.model, "none or voluntary");
  EXPECT_FALSE(found.preemptible);
}

TEST_F(KernelTest, Settings) {
  Put("/proc/sys/kernel/unprivileged_bpf_disabled", "2\n");
  Put("/proc/sys/kernel/io_uring_disabled", "rubbish\n");
  EXPECT_EQ(ReadKernelSetting(root_.path(), "unprivileged_bpf_disabled"), 2);
  EXPECT_EQ(ReadKernelSetting(root_.path(), "io_uring_disabled"), -1);
  EXPECT_EQ(ReadKernelSetting(root_.path(), "absent"), -1);
}

// Written by gzip, as the kernel's own /proc/config.gz is.
TEST(RunningKernelTest, ReadsAPackedConfiguration) {
  if (!std::filesystem::exists("/proc/config.gz")) {
    GTEST_SKIP() << "kernel: no /proc/config.gz";
  }
  TemporaryFolder root;
  std::filesystem::create_directories(root.path() + "/proc");
  std::ifstream packed("/proc/config.gz", std::ios::binary);
  std::ofstream(root.path() + "/proc/config.gz", std::ios::binary)
      << packed.rdbuf();
  EXPECT_EQ(ReadPreemption(root.path(), "none", kDynamic).evidence,
            "/proc/config.gz");
}

TEST(RunningKernelTest, IsDescribed) {
  const v1::KernelFacts facts = ReadKernelFacts();
  utsname name{};
  uname(&name);
  EXPECT_EQ(facts.release(), name.release);
  EXPECT_FALSE(facts.preemption().empty());
  EXPECT_FALSE(facts.preemption_evidence().empty());
  int major = 0, minor = 0;
  ASSERT_EQ(sscanf(name.release, "%d.%d", &major, &minor), 2);
  // No distribution is known to have taken these calls back to older kernels;
  // the code under test does not look at the number.
  EXPECT_EQ(facts.peer_pidfd(), major * 100 + minor >= 605);
  if (facts.io_uring_disabled() <= 0) {
    EXPECT_EQ(facts.socket_uring_setsockopt(), major * 100 + minor >= 607);
  }
}

}  // namespace
}  // namespace bpfgrant::daemon

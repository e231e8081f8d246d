#include "daemon/loader/instance.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <string>

#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

constexpr uint32_t kSlot = 7;
constexpr uint64_t kNonce = 0x1234567890abcdef;
constexpr int kPacketBytes = 50;  // 64 without the Ethernet header

class InstanceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    gate_.reset(MakeGate(kSlot, kNonce));
    ASSERT_TRUE(gate_.valid());
  }
  Instance Load(const Program& program, const Mitigations& mitigations = {}) {
    EXPECT_TRUE(program.available()) << RefusalFor(program);
    auto instance =
        LoadInstance(program, {gate_.get()}, kSlot, kNonce, mitigations);
    EXPECT_TRUE(instance.ok()) << instance.status();
    return *std::move(instance);
  }
  void SetGate(uint64_t nonce) {
    const bpfgrant_gate_entry entry = {.nonce = nonce, .swaps = 0};
    ASSERT_EQ(bpf_map_update_elem(gate_.get(), &kSlot, &entry, BPF_ANY), 0);
  }
  TemporaryFolder folder_;
  UniqueFd gate_;
};

TEST_F(InstanceTest, RunsWhileItsGateIsOpen) {
  folder_.WriteProgram("sample");
  const Instance instance = Load(*AdmitFrom(folder_.path(), "sample"));
  EXPECT_EQ(instance.handles.size(), 4u);
  EXPECT_EQ(RunFilter(instance.program.get()), kPacketBytes);
  SetGate(0);
  EXPECT_EQ(RunFilter(instance.program.get()), 0);
  SetGate(kNonce + 1);
  EXPECT_EQ(RunFilter(instance.program.get()), 0);
  SetGate(kNonce);
  EXPECT_EQ(RunFilter(instance.program.get()), kPacketBytes);
}

TEST_F(InstanceTest, AnswersPassWhereTheManifestSaysSo) {
  const std::string object = ObjectBytes("good");
  folder_.Write("sample.bpf.o", object);
  folder_.Write("sample.manifest",
                SampleManifest("sample", object, "DROP", "PASS"));
  const Instance instance = Load(*AdmitFrom(folder_.path(), "sample"));
  SetGate(0);
  // How many bytes to keep: all there are, or more.
  EXPECT_GE(RunFilter(instance.program.get()), kPacketBytes);
}

TEST_F(InstanceTest, InstancesShareNothing) {
  folder_.WriteProgram("sample");
  const auto program = AdmitFrom(folder_.path(), "sample");
  const Instance one = Load(*program), two = Load(*program);
  RunFilter(one.program.get());
  const uint32_t zero = 0;
  uint64_t count = 0;
  ASSERT_EQ(bpf_map_lookup_elem(one.handles[2].get(), &zero, &count), 0);
  EXPECT_EQ(count, 1u);
  ASSERT_EQ(bpf_map_lookup_elem(two.handles[2].get(), &zero, &count), 0);
  EXPECT_EQ(count, 0u);
}

// Handle 2 is READ, handle 3 is WRITE. The attack is to do the other.
bool WritesThroughReadOnly(const Instance& instance) {
  const uint32_t zero = 0;
  const uint64_t value = 99;
  return bpf_map_update_elem(instance.handles[2].get(), &zero, &value,
                             BPF_ANY) == 0;
}
bool ReadsThroughWriteOnly(const Instance& instance) {
  const uint32_t key = 1;
  uint64_t value = 5;
  EXPECT_EQ(
      bpf_map_update_elem(instance.handles[3].get(), &key, &value, BPF_ANY), 0);
  return bpf_map_lookup_elem(instance.handles[3].get(), &key, &value) == 0;
}

TEST_F(InstanceTest, HandlesAreNarrowed) {
  folder_.WriteProgram("sample");
  const Instance instance = Load(*AdmitFrom(folder_.path(), "sample"));
  EXPECT_FALSE(WritesThroughReadOnly(instance));
  EXPECT_EQ(errno, EPERM);
  EXPECT_FALSE(ReadsThroughWriteOnly(instance));
  EXPECT_EQ(errno, EPERM);
  // The program itself is not bound by that.
  EXPECT_EQ(RunFilter(instance.program.get()), kPacketBytes);
  const uint32_t zero = 0;
  uint64_t count = 0;
  ASSERT_EQ(bpf_map_lookup_elem(instance.handles[2].get(), &zero, &count), 0);
  EXPECT_EQ(count, 1u);
}

TEST_F(InstanceTest, HandlesThatAreNotNarrowed) {
  folder_.WriteProgram("sample");
  Mitigations off;
  off.narrowed_handles = false;
  const Instance instance = Load(*AdmitFrom(folder_.path(), "sample"), off);
  EXPECT_TRUE(WritesThroughReadOnly(instance));
  EXPECT_TRUE(ReadsThroughWriteOnly(instance));
}

// The attack: approve one object, and let another stand there by the time of
// the load.
int AnswerAfterSwap(const TemporaryFolder& folder, int gate,
                    const Mitigations& mitigations) {
  folder.WriteProgram("sample");
  const auto program = AdmitFrom(folder.path(), "sample", mitigations);
  EXPECT_TRUE(program->available()) << RefusalFor(*program);
  folder.Write("sample.bpf.o", ObjectBytes("answers_nothing"));
  const auto instance =
      LoadInstance(*program, {gate}, kSlot, kNonce, mitigations);
  EXPECT_TRUE(instance.ok()) << instance.status();
  return instance.ok() ? RunFilter(instance->program.get()) : -1;
}

TEST_F(InstanceTest, TheBytesThatWereApprovedAreLoaded) {
  EXPECT_EQ(AnswerAfterSwap(folder_, gate_.get(), {}), kPacketBytes);
}

TEST_F(InstanceTest, BytesThatAreReadAgain) {
  Mitigations off;
  off.read_once = false;
  EXPECT_EQ(AnswerAfterSwap(folder_, gate_.get(), off), 0);
}

// The attack: an object that nobody approved, run to its answer.
TEST_F(InstanceTest, AnUnapprovedObjectWithoutTheDigestCheck) {
  folder_.WriteProgram("sample");
  folder_.Write("sample.bpf.o", ObjectBytes("answers_nothing"));
  EXPECT_FALSE(AdmitFrom(folder_.path(), "sample")->available());
  Mitigations off;
  off.digest_check = false;
  const Instance instance =
      Load(*AdmitFrom(folder_.path(), "sample", off), off);
  EXPECT_EQ(RunFilter(instance.program.get()), 0);
}

TEST_F(InstanceTest, LoadsReuseportPrograms) {
  folder_.WriteProgram("steer", "steer");
  const Instance instance = Load(*AdmitFrom(folder_.path(), "steer"));
  EXPECT_TRUE(instance.program.valid());
  EXPECT_EQ(instance.handles.size(), 1u);
}

TEST_F(InstanceTest, SaysWhyTheKernelRefused) {
  folder_.WriteProgram("sample");
  const auto program = AdmitFrom(folder_.path(), "sample");
  // No map at all where the gate should be.
  EXPECT_THAT(LoadInstance(*program, {0}, kSlot, kNonce, {}).status(),
              Refused(v1::REASON_LOAD_FAILED, "'sample'"));
}

}  // namespace
}  // namespace bpfgrant::daemon

#include "daemon/loader/admission.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "proto/wire/limits.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

class AdmissionTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_BPF(); }

  void ExpectRefused(const std::string& variant, v1::Reason reason,
                     const std::string& what) {
    folder_.WriteProgram("sample", variant);
    const auto program = AdmitFrom(folder_.path(), "sample");
    EXPECT_FALSE(program->available());
    EXPECT_EQ(ReasonFor(*program), reason) << RefusalFor(*program);
    EXPECT_NE(RefusalFor(*program).find(what), std::string::npos)
        << RefusalFor(*program);
    // Always with the place in the manifest.
    EXPECT_EQ(
        RefusalFor(*program).rfind(folder_.path() + "/sample.manifest:", 0), 0u)
        << RefusalFor(*program);
  }
  TemporaryFolder folder_;
};

TEST_F(AdmissionTest, TakesAGoodProgram) {
  folder_.WriteProgram("sample");
  const auto program = AdmitFrom(folder_.path(), "sample");
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  const v1::DescribeReply& description = program->entry.description();
  EXPECT_EQ(description.summary().interface(), "sample/1");
  EXPECT_EQ(description.detail().type(), "socket_filter");
  EXPECT_EQ(description.detail().on_revoke(), "DROP");
  EXPECT_TRUE(description.detail().runnable());
  EXPECT_EQ(description.detail().fd_danger(), "");
  EXPECT_EQ(program->entry.pool_target(), kDefaultPoolReady);
  EXPECT_EQ(program->entry.identity().size(), 64u);
}

TEST_F(AdmissionTest, DangerNeedsAPreemptibleKernelAndARunnableProgram) {
  v1::KernelFacts kernel;
  kernel.set_preemptible(true);
  kernel.set_preemption("lazy");
  auto admission = Admission::Create(kernel, {});
  ASSERT_TRUE(admission.ok());
  folder_.WriteProgram("sample");
  const auto sample = AdmitFrom(folder_.path(), "sample", *admission);
  EXPECT_NE(sample->entry.description().detail().fd_danger().find("lazy"),
            std::string::npos);
  folder_.WriteProgram("steer", "steer");
  const auto steer = AdmitFrom(folder_.path(), "steer", *admission);
  ASSERT_TRUE(steer->available()) << RefusalFor(*steer);
  EXPECT_FALSE(steer->entry.description().detail().runnable());
  EXPECT_EQ(steer->entry.description().detail().fd_danger(), "");
  EXPECT_EQ(steer->entry.description().detail().type(), "sk_reuseport");
}

TEST_F(AdmissionTest, WithoutAGate) {
  ExpectRefused("no_gate", v1::REASON_GATE_MISSING, "bpfgrant_gate");
}

TEST_F(AdmissionTest, GateOfAnotherShape) {
  ExpectRefused("small_gate", v1::REASON_OBJECT_MISMATCH, "32768");
}

TEST_F(AdmissionTest, GateThatIsNeverAsked) {
  ExpectRefused("gate_unused", v1::REASON_GATE_MISSING, "never looks");
}

TEST_F(AdmissionTest, WritingTheGateIsRefusedByTheVerifier) {
  ExpectRefused("writes_gate", v1::REASON_VERIFIER, "write into map forbidden");
}

TEST_F(AdmissionTest, WritingTheGateForSomeNoncesOnlyIsRefused) {
  ExpectRefused("writes_gate_sometimes", v1::REASON_VERIFIER,
                "write into map forbidden");
}

TEST_F(AdmissionTest, UpdatingTheGateIsRefusedByTheVerifier) {
  ExpectRefused("updates_gate", v1::REASON_VERIFIER,
                "write into map forbidden");
}

TEST_F(AdmissionTest, TheVerifiersLogIsKept) {
  ExpectRefused("out_of_bounds", v1::REASON_VERIFIER, "the verifier");
  const auto program = AdmitFrom(folder_.path(), "sample");
  const std::string& log = program->entry.description().verifier_log();
  EXPECT_NE(log.find("invalid access to map value"), std::string::npos) << log;
  EXPECT_LE(log.size(), kMaxVerifierLogBytes);
}

TEST_F(AdmissionTest, UndeclaredMap) {
  ExpectRefused("extra_map", v1::REASON_OBJECT_MISMATCH, "'extra'");
}

TEST_F(AdmissionTest, PinnedMap) {
  const std::string object = ObjectBytes("pinned_map");
  folder_.Write("sample.bpf.o", object);
  folder_.Write("sample.manifest",
                SampleManifest("sample", object) +
                    "map { name: \"extra\" kind: HANDLE_KIND_HASH }\n");
  const auto program = AdmitFrom(folder_.path(), "sample");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
  EXPECT_NE(RefusalFor(*program).find("pinned"), std::string::npos)
      << RefusalFor(*program);
}

TEST_F(AdmissionTest, WhatTheManifestNamesMustBeThere) {
  const std::string object = ObjectBytes("good");
  folder_.Write("sample.bpf.o", object);
  struct Case {
    const char* from;
    const char* to;
    const char* expected;
  };
  for (const Case& wrong :
       {Case{"name: \"orders\"", "name: \"ordres\"", "'orders'"},
        Case{"kind: HANDLE_KIND_HASH", "kind: HANDLE_KIND_ARRAY",
             ":34:3: the object's map 'orders' is of type hash"},
        Case{"function: \"sample\"", "function: \"simple\"", ":7:3: "},
        Case{"type: SOCKET_FILTER", "type: SK_REUSEPORT",
             ":8:3: the object's program is of type socket_filter"}}) {
    folder_.Write("sample.manifest",
                  SampleManifest("sample", object, wrong.from, wrong.to));
    const auto program = AdmitFrom(folder_.path(), "sample");
    EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
    EXPECT_NE(RefusalFor(*program).find(wrong.expected), std::string::npos)
        << RefusalFor(*program);
  }
  folder_.Write("sample.manifest",
                SampleManifest("sample", object) +
                    "map { name: \"lost\" kind: HANDLE_KIND_HASH }\n");
  EXPECT_EQ(ReasonFor(*AdmitFrom(folder_.path(), "sample")),
            v1::REASON_OBJECT_MISMATCH);
}

TEST_F(AdmissionTest, RubbishForAnObject) {
  std::string rubbish(4096, '\0');
  for (size_t i = 0; i < rubbish.size(); ++i) {
    rubbish[i] = static_cast<char>(i * 131 + 7);
  }
  folder_.Write("sample.bpf.o", rubbish);
  folder_.Write("sample.manifest", SampleManifest("sample", rubbish));
  const auto program = AdmitFrom(folder_.path(), "sample");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_FILE_INVALID)
      << RefusalFor(*program);
}

// Cut off and damaged objects: whatever libbpf makes of them, nothing is
// admitted that the manifest does not describe, and nothing falls over.
TEST_F(AdmissionTest, DamagedObjects) {
  const std::string object = ObjectBytes("good");
  for (size_t i = 0; i < object.size(); i += object.size() / 40) {
    std::string damaged = object.substr(0, i);
    folder_.Write("sample.bpf.o", damaged);
    folder_.Write("sample.manifest", SampleManifest("sample", damaged));
    EXPECT_FALSE(AdmitFrom(folder_.path(), "sample")->available()) << i;
    damaged = object;
    for (size_t j = i; j < std::min(i + 16, object.size()); ++j) {
      damaged[j] = static_cast<char>(damaged[j] ^ 0xff);
    }
    folder_.Write("sample.bpf.o", damaged);
    folder_.Write("sample.manifest", SampleManifest("sample", damaged));
    const auto program = AdmitFrom(folder_.path(), "sample");
    // Reads as UTF-8, or the broker could not parse it.
    CatalogEntry copy;
    EXPECT_TRUE(copy.ParseFromString(program->entry.SerializeAsString()));
  }
}

TEST_F(AdmissionTest, MissingObject) {
  folder_.Write("sample.manifest", SampleManifest("sample", "bytes"));
  const auto program = AdmitFrom(folder_.path(), "sample");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_FILE_INVALID);
  EXPECT_NE(RefusalFor(*program).find(":4:1: "), std::string::npos)
      << RefusalFor(*program);
}

TEST_F(AdmissionTest, HundredMegabytes) {
  folder_.WriteProgram("sample");
  const std::string path = folder_.path() + "/sample.bpf.o";
  ASSERT_EQ(truncate(path.c_str(), 100 * 1024 * 1024), 0);
  EXPECT_EQ(ReasonFor(*AdmitFrom(folder_.path(), "sample")),
            v1::REASON_TOO_LARGE);
}

TEST_F(AdmissionTest, APoolOfNone) {
  const std::string object = ObjectBytes("good");
  folder_.Write("sample.bpf.o", object);
  folder_.Write("sample.manifest",
                SampleManifest("sample", object) + "pool { ready: 0 }\n");
  EXPECT_EQ(AdmitFrom(folder_.path(), "sample")->entry.pool_target(), 0u);
}

TEST_F(AdmissionTest, UnsafeObject) {
  folder_.WriteProgram("sample");
  const std::string path = folder_.path() + "/sample.bpf.o";
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  EXPECT_EQ(ReasonFor(*AdmitFrom(folder_.path(), "sample")),
            v1::REASON_FILE_UNSAFE);
  Mitigations off;
  off.file_safety = false;
  EXPECT_TRUE(AdmitFrom(folder_.path(), "sample", off)->available());
}

// The twin: the object that was not approved is admitted.
TEST_F(AdmissionTest, DigestMismatch) {
  folder_.WriteProgram("sample");
  folder_.Write("sample.bpf.o", ObjectBytes("answers_nothing"));
  const auto program = AdmitFrom(folder_.path(), "sample");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_DIGEST_MISMATCH);
  EXPECT_NE(RefusalFor(*program).find(":5:1: "), std::string::npos)
      << RefusalFor(*program);
  Mitigations off;
  off.digest_check = false;
  EXPECT_TRUE(AdmitFrom(folder_.path(), "sample", off)->available());
}

// Opening an object must not pin, and admission must leave nothing loaded.
TEST_F(AdmissionTest, LeavesNoFdOpen) {
  folder_.WriteProgram("sample");
  auto admission = Admission::Create({}, {});
  ASSERT_TRUE(admission.ok());
  const auto count = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         {});
  };
  // libbpf keeps what it learned about the kernel at the first load.
  AdmitFrom(folder_.path(), "sample", *admission);
  const auto before = count();
  AdmitFrom(folder_.path(), "sample", *admission);
  folder_.WriteProgram("sample", "writes_gate");
  AdmitFrom(folder_.path(), "sample", *admission);
  EXPECT_EQ(count(), before);
}

}  // namespace
}  // namespace bpfgrant::daemon

// Objects with several programs, of which the manifest names one.

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/instance.h"
#include "daemon/loader/references.h"
#include "gmock/gmock.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr uint32_t kSlot = 7;
constexpr uint64_t kNonce = 0x1234567890abcdef;
constexpr int kPacketBytes = 50;  // 64 without the Ethernet header

class SeveralTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_BPF(); }

  std::shared_ptr<const Program> Admit(
      const std::string& function, const std::string& sample,
      const std::string& maps =
          "map { name: \"extra\" kind: HANDLE_KIND_HASH }\n") {
    const std::string object = ObjectBytes(sample);
    folder_.Write("sample.bpf.o", object);
    folder_.Write("sample.manifest",
                  SampleManifest("sample", object, "function: \"sample\"",
                                 absl::StrCat("function: \"", function, "\"")) +
                      maps);
    auto admission = Admission::Create({}, {});
    EXPECT_TRUE(admission.ok()) << admission.status();
    AdmissionLimits limits;
    EXPECT_TRUE(
        limits
            .Override("a.conf", "kfunc: [\"default\", \"bpf_never_heard_of\"]")
            .ok());
    admission->SetLimits(limits);
    return AdmitFrom(folder_.path(), "sample", *admission);
  }
  // What the program answers to a packet.
  int Answer(const Program& program) {
    const UniqueFd gate(MakeGate(kSlot, kNonce));
    const auto instance =
        LoadInstance(program, {gate.get()}, kSlot, kNonce, {});
    EXPECT_TRUE(instance.ok()) << instance.status();
    return instance.ok() ? RunFilter(instance->program.get()) : -1;
  }

  TemporaryFolder folder_;
};

// And no other: some of these this kernel would not load.
TEST_F(SeveralTest, TheOneThatIsNamedIsLoaded) {
  const auto sample = Admit("sample", "several_programs");
  ASSERT_TRUE(sample->available()) << RefusalFor(*sample);
  EXPECT_EQ(Answer(*sample), kPacketBytes);
  // Its section begins with '?': it waits to be asked for.
  const auto asks = Admit("asks_first", "several_programs");
  ASSERT_TRUE(asks->available()) << RefusalFor(*asks);
  EXPECT_EQ(Answer(*asks), kPacketBytes);
  const auto other = Admit("keeps_orders", "several_programs");
  ASSERT_TRUE(other->available()) << RefusalFor(*other);
  EXPECT_EQ(Answer(*other), 7);
  EXPECT_NE(sample->entry.identity(), other->entry.identity());
}

TEST_F(SeveralTest, EachIsJudgedForItself) {
  struct Case {
    const char* function;
    v1::Reason reason;
    const char* words;
  };
  for (const Case& wrong :
       {Case{"ungated", v1::REASON_GATE_MISSING, "never looks at the gate"},
        Case{"opens_gates", v1::REASON_VERIFIER, "write into map forbidden"},
        Case{"of_another_type", v1::REASON_OBJECT_MISMATCH,
             "the object's program is of type sk_reuseport"},
        Case{"of_no_type", v1::REASON_OBJECT_MISMATCH, "of type unspec"},
        Case{"too_new", v1::REASON_VERIFIER, "bpf_never_heard_of"},
        Case{"absent", v1::REASON_OBJECT_MISMATCH, "no program 'absent'"}}) {
    const auto program = Admit(wrong.function, "several_programs");
    EXPECT_FALSE(program->available()) << wrong.function;
    EXPECT_EQ(ReasonFor(*program), wrong.reason) << RefusalFor(*program);
    EXPECT_THAT(RefusalFor(*program), HasSubstr(wrong.words));
  }
}

TEST_F(SeveralTest, EachMapIsNamedInTheManifest) {
  const auto program = Admit("sample", "several_programs", "");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
  EXPECT_THAT(RefusalFor(*program), HasSubstr("has a map 'extra'"));
}

// This kernel could not make it.
TEST_F(SeveralTest, MapsOfOthersAreNotMade) {
  const auto program = Admit("sample", "impossible_map");
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_EQ(Answer(*program), kPacketBytes);
  EXPECT_LT(program->entry.description().instance_bytes(), 1U << 20);
  const auto user = Admit("keeps_orders", "impossible_map");
  EXPECT_FALSE(user->available());
  EXPECT_GT(user->entry.description().instance_bytes(), 1ULL << 32);
  // Whoever is given one needs it, used or not.
  const auto offered =
      Admit("sample", "impossible_map",
            "map { name: \"extra\" kind: HANDLE_KIND_HASH handle: \"extra\" "
            "rights: RIGHTS_READ }\n");
  EXPECT_FALSE(offered->available());
}

// libbpf looks for each that is not __weak, whoever calls it.
TEST_F(SeveralTest, FunctionsOfTheKernelsThatOthersCallMustBeWeak) {
  const auto program = Admit("sample", "strong_kfunc");
  EXPECT_FALSE(program->available());
  EXPECT_THAT(RefusalFor(*program), HasSubstr("bpf_never_heard_of"));
}

TEST(ReferencesTest, OfOneProgram) {
  const std::string object = ObjectBytes("several_programs");
  EXPECT_THAT(ReadReferences(object, "sample").maps,
              ElementsAre("bpfgrant_gate", "counters"));
  EXPECT_FALSE(
      ReadReferences(object, "sample").functions["bpf_never_heard_of"].used);
  EXPECT_THAT(ReadReferences(object, "keeps_orders").maps,
              ElementsAre("bpfgrant_gate", "extra"));
  EXPECT_THAT(ReadReferences(object, "too_new").functions,
              ElementsAre(Pair("bpf_never_heard_of",
                               AllOf(Field(&OuterFunction::used, true),
                                     Field(&OuterFunction::weak, true),
                                     Field(&OuterFunction::asks, false)))));
  EXPECT_TRUE(ReadReferences(object, "asks_first")
                  .functions["bpf_never_heard_of"]
                  .asks);
  EXPECT_FALSE(ReadReferences(ObjectBytes("strong_kfunc"), "too_new")
                   .functions["bpf_never_heard_of"]
                   .weak);
  EXPECT_TRUE(ReadReferences(object, "absent").maps.empty());
}

// Whatever was done to the file, it is read to its end.
TEST(ReferencesTest, OfDamagedObjects) {
  const std::string object = ObjectBytes("several_programs");
  for (size_t i = 0; i < object.size(); i += 7) {
    std::string damaged = object;
    damaged[i] = static_cast<char>(damaged[i] ^ 0xff);
    EXPECT_LT(ReadReferences(damaged, "sample").maps.size(), 10u) << i;
    EXPECT_LT(ReadReferences(object.substr(0, i), "sample").maps.size(), 10u);
  }
}

}  // namespace
}  // namespace bpfgrant::daemon

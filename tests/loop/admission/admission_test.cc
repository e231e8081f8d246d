// A loop's manifest and object, and all that is refused before the kernel sees
// it, or by the kernel.

#include <bpf/libbpf.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/kernel.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/object.h"
#include "tests/catalog/catalog_fixture.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/skip.h"
#include "tests/loop/place.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::HasSubstr;

std::string Object(const std::string& variant) {
  return test::ReadFile(
      absl::StrCat(LOOP_OBJECTS, "/loop_admission_", variant, ".bpf.o"));
}

std::string LoopManifest(const std::string& object,
                         const std::string& from = "",
                         const std::string& to = "") {
  std::string text = absl::StrCat(R"(name: "x"
interface: "x/1"
description: "A loop"
object: "x.bpf.o"
sha256: ")",
                                  Sha256({object}), R"("
program {
  function: "bpfgrant_step"
  type: IO_URING_LOOP
  delivery: DELIVERY_RING
}
loop {
  sq_entries: 8
  cq_entries: 16
  memory_bytes: 4096
  step_budget: 100
  opcode: "NOP"
  sqe_flag: "IO_LINK"
  register_call: "PROBE"
}
)");
  if (!from.empty()) {
    EXPECT_NE(text.find(from), std::string::npos) << from;
    text = absl::StrReplaceAll(text, {{from, to}});
  }
  return text;
}

// --- The manifest ------------------------------------------------------------

struct Complaint {
  const char* from;
  const char* to;
  const char* expected;
};
void PrintTo(const Complaint& complaint, std::ostream* stream) {
  *stream << complaint.expected;
}

class LoopComplaintTest : public ::testing::TestWithParam<Complaint> {};

TEST_P(LoopComplaintTest, HasItsPlace) {
  const Complaint& complaint = GetParam();
  const auto parsed =
      Manifest::Parse("/etc/x.manifest", "x",
                      LoopManifest("bytes", complaint.from, complaint.to));
  EXPECT_THAT(parsed.status(),
              Refused(v1::REASON_FILE_INVALID, complaint.expected));
}

INSTANTIATE_TEST_SUITE_P(
    All, LoopComplaintTest,
    ::testing::Values(
        Complaint{"bpfgrant_step", "other", "7:3: the function of a loop"},
        Complaint{"DELIVERY_RING", "DELIVERY_PROGRAM", "9:3: a loop's only"},
        Complaint{"delivery: DELIVERY_RING",
                  "delivery: DELIVERY_RING\n  delivery: DELIVERY_ATTACH",
                  "a loop's only delivery"},
        Complaint{"DELIVERY_RING", "DELIVERY_RING\n  on_revoke: PASS",
                  "10:3: a revoked loop stops"},
        Complaint{"sq_entries: 8", "sq_entries: 7", "12:3: sq_entries"},
        Complaint{"sq_entries: 8", "sq_entries: 8192", "12:3: sq_entries"},
        Complaint{"cq_entries: 16", "cq_entries: 4", "13:3: cq_entries"},
        Complaint{"cq_entries: 16", "cq_entries: 131072", "13:3: cq_entries"},
        Complaint{"memory_bytes: 4096", "memory_bytes: 4095",
                  "14:3: memory_bytes"},
        Complaint{"step_budget: 100", "step_budget: 0", "15:3: step_budget"},
        Complaint{"step_budget: 100", "step_budget: 16777217",
                  "15:3: step_budget"},
        Complaint{"opcode: \"NOP\"\n", "", "opcode must be given"},
        Complaint{"\"NOP\"", "\"NOPE\"", "16:3: there is no operation 'NOPE'"},
        Complaint{"\"NOP\"", "\"URING_CMD\"", "16:3: no loop may have URING"},
        Complaint{"\"NOP\"", "\"URING_CMD128\"", "no loop may have URING_CMD1"},
        Complaint{"\"NOP\"", "\"SENDMSG\"", "no loop may have SENDMSG"},
        Complaint{"\"NOP\"", "\"SENDMSG_ZC\"", "no loop may have SENDMSG_ZC"},
        Complaint{"\"NOP\"", "\"NOP\"\n  opcode: \"NOP\"",
                  "17:3: NOP stands here twice"},
        Complaint{"\"IO_LINK\"", "\"LINK\"", "17:3: there is no request flag"},
        Complaint{"\"PROBE\"", "\"RESTRICTIONS\"", "18:3: a loop's ring"},
        Complaint{"\"PROBE\"", "\"PERSONALITY\"", "18:3: a loop's ring"},
        Complaint{"\"PROBE\"", "\"RESIZE_RINGS\"", "18:3: a loop's ring"},
        Complaint{"loop {",
                  "map { name: \"m\" kind: HANDLE_KIND_ARRAY "
                  "handle: \"status\" rights: RIGHTS_READ }\nloop {",
                  "a loop's handle 'status'"}));

TEST(LoopManifestTest, OnlyLoopsHaveALoop) {
  EXPECT_THAT(Manifest::Parse("/etc/x.manifest", "x",
                              SampleManifest("x", "bytes", "program {",
                                             "loop { sq_entries: 8 }\n"
                                             "program {"))
                  .status(),
              Refused(v1::REASON_FILE_INVALID, "loop is for programs"));
}

// --- Linking -----------------------------------------------------------------

TEST(LinkTest, PutsTheEntryInFront) {
  const auto linked = LinkLoop(Object("good"));
  ASSERT_TRUE(linked.ok()) << linked.status();
  const auto object = OpenObject(linked->view(), "x");
  ASSERT_TRUE(object.ok()) << object.status();
  EXPECT_STREQ(bpf_program__name(ProgramOf(object->get())), kLoopEntry);
}

struct Unlinkable {
  const char* variant;
  const char* expected;
};
void PrintTo(const Unlinkable& unlinkable, std::ostream* stream) {
  *stream << unlinkable.variant;
}
class UnlinkableTest : public ::testing::TestWithParam<Unlinkable> {};

TEST_P(UnlinkableTest, IsRefused) {
  EXPECT_THAT(LinkLoop(Object(GetParam().variant)).status(),
              Refused(v1::REASON_OBJECT_MISMATCH, GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    All, UnlinkableTest,
    ::testing::Values(
        Unlinkable{"own_program", "a program 'stowaway' of its own"},
        Unlinkable{"private_data", "data in the section .data.bpfgrant"},
        Unlinkable{"gate_data", "data in the section .rodata.gate"},
        Unlinkable{"entry_symbol", "conflicting non-weak symbol"}));

TEST(LinkTest, RefusesWhatIsNoObject) {
  EXPECT_FALSE(LinkLoop("").ok());
  EXPECT_FALSE(LinkLoop("not an object").ok());
  EXPECT_FALSE(LinkLoop(std::string(4096, '\x7f')).ok());
  const std::string good = Object("good");
  for (const size_t length : {16, 64, 128, 1024}) {
    EXPECT_FALSE(LinkLoop(good.substr(0, length)).ok()) << length;
  }
}

// What the linker does with such a file is its own affair; this process lives.
TEST(LinkTest, OutlivesObjectsWithFlippedBytes) {
  const std::string good = Object("good");
  for (size_t i = 0; i < good.size(); i += good.size() / 64) {
    std::string bad = good;
    bad[i] = static_cast<char>(~bad[i]);
    LinkLoop(bad).IgnoreError();
  }
}

// --- Admission ---------------------------------------------------------------

class LoopAdmissionTest : public ::testing::Test {
 protected:
  std::shared_ptr<const Program> Admit(const std::string& variant,
                                       const std::string& from = "",
                                       const std::string& to = "") {
    const std::string object = Object(variant);
    folder_.Write("x.bpf.o", object);
    folder_.Write("x.manifest", LoopManifest(object, from, to));
    auto admission = Admission::Create(ReadKernelFacts(), {});
    EXPECT_TRUE(admission.ok()) << admission.status();
    return AdmitFrom(folder_.path(), "x", *admission);
  }
  TemporaryFolder folder_;
};

TEST_F(LoopAdmissionTest, DescribesTheRing) {
  REQUIRE_BPF();
  const auto program = Admit("good");
  const v1::DescribeReply& description = program->entry.description();
  const v1::LoopDescription& loop = description.detail().loop();
  EXPECT_EQ(loop.sq_entries(), 8u);
  EXPECT_EQ(loop.cq_entries(), 16u);
  EXPECT_EQ(loop.step_budget(), 100u);
  EXPECT_EQ(description.handle(0).name(), "status");
  EXPECT_TRUE(description.handle(0).mappable());
  EXPECT_THAT(description.header(), HasSubstr("#define X_SQ_ENTRIES 8"));
}

TEST_F(LoopAdmissionTest, IsAvailableWhereTheKernelHasLoops) {
  REQUIRE_BPF();
  const auto program = Admit("good");
  EXPECT_EQ(ReasonFor(*program), test::KernelHasLoops()
                                     ? v1::REASON_UNSPECIFIED
                                     : v1::REASON_KERNEL_TOO_OLD)
      << RefusalFor(*program);
}

// By its name, the one way to it: libbpf before 1.5 cannot link such an object,
// and where it can, the verifier sees a store to a map that is read-only.
TEST_F(LoopAdmissionTest, AStoreToTheGateIsRefused) {
  REQUIRE_BPF();
  BPFGRANT_REQUIRE_KERNEL(test::KernelHasLoops(), "io_uring loops");
  // It can have its own slot, to read.
  const auto program = Admit("writes_gate");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_VERIFIER) << RefusalFor(*program);
  // Not the map: libbpf's linker leaves its name where it is not.
  EXPECT_THAT(ReasonFor(*Admit("names_gate")),
              ::testing::AnyOf(v1::REASON_FILE_INVALID, v1::REASON_VERIFIER));
}

TEST_F(LoopAdmissionTest, ALoopWithoutAStepIsRefused) {
  REQUIRE_BPF();
  EXPECT_FALSE(Admit("no_step")->available());
}

TEST_F(LoopAdmissionTest, AConstantOfTheGeometryMustBeThere) {
  REQUIRE_BPF();
  BPFGRANT_REQUIRE_KERNEL(test::KernelHasLoops(), "io_uring loops");
  const auto bind = [this](const std::string& variant) {
    return Admit(variant, "opcode: \"NOP\"",
                 "opcode: \"NOP\"\n  geometry { sq_entries: \"entries\" }");
  };
  EXPECT_EQ(ReasonFor(*bind("good")), v1::REASON_OBJECT_MISMATCH);
  const auto program = bind("has_constant");
  EXPECT_TRUE(program->available()) << RefusalFor(*program);
}

}  // namespace
}  // namespace bpfgrant::daemon

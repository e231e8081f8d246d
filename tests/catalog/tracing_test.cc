// Tracing programs: what their manifests and objects must be.

#include <memory>
#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/manifest.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kManifest[] = R"(name: "traced"
interface: "traced/1"
object: "traced.bpf.o"
sha256: "DIGEST"
program {
  type: TRACING
  delivery: DELIVERY_PROCESS
}
hook { function: "count_created" tracepoint: "io_uring_create" }
hook { function: "count_completed" tracepoint: "io_uring_complete" }
map {
  name: "counts"
  kind: HANDLE_KIND_ARRAY
  handle: "counts"
  rights: RIGHTS_READ
  structure: "traced_count"
}
)";

std::string ManifestFor(const std::string& object, const std::string& from = "",
                        const std::string& to = "") {
  std::string text =
      absl::StrReplaceAll(kManifest, {{"DIGEST", Sha256({object})}});
  if (from.empty()) return text;
  EXPECT_NE(text.find(from), std::string::npos) << from;
  return absl::StrReplaceAll(text, {{from, to}});
}

class TracingTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_BPF(); }

  std::shared_ptr<const Program> Admit(const std::string& variant,
                                       const std::string& from = "",
                                       const std::string& to = "") {
    const std::string object = ObjectBytes(variant);
    folder_.Write("traced.bpf.o", object);
    folder_.Write("traced.manifest", ManifestFor(object, from, to));
    return AdmitFrom(folder_.path(), "traced", *admission_);
  }

  TemporaryFolder folder_;
  // Where whoever held a program that can be run at will could do harm.
  absl::StatusOr<Admission> admission_ = [] {
    v1::KernelFacts kernel;
    kernel.set_preemptible(true);
    return Admission::Create(kernel, {});
  }();
};

TEST_F(TracingTest, IsDescribedAsItsClientsFindIt) {
  const auto program = Admit("traced");
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  const v1::DescribeReply& description = program->entry.description();
  const v1::ProgramDescription& detail = description.detail();
  EXPECT_EQ(detail.type(), "tracing");
  EXPECT_EQ(detail.entry_point(), "count_created, count_completed");
  EXPECT_THAT(detail.tracepoint(),
              ElementsAre("io_uring_create", "io_uring_complete"));
  EXPECT_EQ(detail.on_revoke(), "STOP");
  EXPECT_FALSE(detail.runnable());
  EXPECT_EQ(detail.fd_danger(), "");
  // Of one grant, not the array of all.
  ASSERT_EQ(description.handle_size(), 1);
  EXPECT_EQ(description.handle(0).max_entries(), 2u);
  EXPECT_EQ(description.handle(0).value_size(), 8u);
  EXPECT_LT(description.instance_bytes(), 4096u);
  EXPECT_THAT(description.header(), HasSubstr("struct traced_count {"));
}

struct Mismatch {
  std::string object;
  v1::Reason reason;
  std::string what;
};

void PrintTo(const Mismatch& mismatch, std::ostream* out) {
  *out << mismatch.what;
}

class TracingObjectTest : public TracingTest,
                          public ::testing::WithParamInterface<Mismatch> {};

TEST_P(TracingObjectTest, IsRefused) {
  const auto program = Admit(GetParam().object);
  EXPECT_FALSE(program->available());
  EXPECT_EQ(ReasonFor(*program), GetParam().reason);
  EXPECT_THAT(RefusalFor(*program), HasSubstr(GetParam().what));
}

INSTANTIATE_TEST_SUITE_P(
    All, TracingObjectTest,
    ::testing::Values(
        Mismatch{"traced_other_tracepoint", v1::REASON_OBJECT_MISMATCH,
                 "traced.manifest:9:1: the object has 'count_created' in "
                 "section 'tp_btf/io_uring_register'"},
        Mismatch{"traced_raw", v1::REASON_OBJECT_MISMATCH,
                 "'count_completed' is not one for a tracepoint"},
        Mismatch{"traced_plain_map", v1::REASON_OBJECT_MISMATCH,
                 "traced.manifest:12:3: the object's map 'counts' is not an "
                 "array of maps"},
        Mismatch{"traced_few_grants", v1::REASON_OBJECT_MISMATCH,
                 "one for each of 32768 grants"},
        Mismatch{"traced_asks_not_whom", v1::REASON_GATE_MISSING,
                 "a function never looks which process it runs for"},
        Mismatch{"traced_writes_gate", v1::REASON_VERIFIER, "the verifier"},
        // A socket filter in its place.
        Mismatch{"good", v1::REASON_OBJECT_MISMATCH,
                 "a program 'sample' that the manifest does not hook"}),
    [](const auto& info) { return info.param.object; });

TEST_F(TracingTest, AFunctionThatIsNotHookedIsRefused) {
  const auto program = Admit(
      "traced",
      "hook { function: \"count_created\" tracepoint: \"io_uring_create\" }\n",
      "");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
  EXPECT_THAT(RefusalFor(*program),
              HasSubstr("'count_created' that the manifest does not hook"));
}

TEST_F(TracingTest, AHookWithoutItsFunctionIsRefused) {
  const auto program =
      Admit("traced", "map {",
            "hook { function: \"absent\" tracepoint: \"io_uring_file_get\" }\n"
            "map {");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
  EXPECT_THAT(RefusalFor(*program),
              HasSubstr("hooks 3 functions, the object has 2"));
}

TEST_F(TracingTest, AKindThatItsGrantsHaveNotGotIsRefused) {
  const auto program = Admit("traced", "KIND_ARRAY", "KIND_HASH");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
  EXPECT_THAT(RefusalFor(*program), HasSubstr("'counts' is of type array"));
}

struct Complaint {
  std::string from, to, what;
};

void PrintTo(const Complaint& complaint, std::ostream* out) {
  *out << complaint.what;
}

class TracingManifestTest : public ::testing::TestWithParam<Complaint> {};

TEST_P(TracingManifestTest, IsRefusedAtItsPlace) {
  const auto& [from, to, what] = GetParam();
  const auto manifest =
      Manifest::Parse("x.manifest", "traced", ManifestFor("", from, to));
  EXPECT_THAT(manifest.status(), Refused(v1::REASON_FILE_INVALID, what));
}

INSTANTIATE_TEST_SUITE_P(
    All, TracingManifestTest,
    ::testing::Values(
        Complaint{"program {", "program {\n  function: \"count_created\"",
                  "x.manifest:6:3: the functions of a tracing program stand in "
                  "its hooks"},
        Complaint{"DELIVERY_PROCESS", "DELIVERY_PROGRAM",
                  "x.manifest:7:3: a tracing program's only delivery"},
        Complaint{"DELIVERY_PROCESS",
                  "DELIVERY_PROCESS\n  delivery: DELIVERY_ATTACH",
                  "a tracing program's only delivery"},
        Complaint{"DELIVERY_PROCESS", "DELIVERY_PROCESS\n  on_revoke: PASS",
                  "x.manifest:8:3: a tracing program decides nothing"},
        Complaint{"\"count_completed\"", "\"count_created\"",
                  "x.manifest:10:8: function 'count_created' is hooked twice"},
        Complaint{" tracepoint: \"io_uring_create\"", "",
                  "a hook's tracepoint must be given"},
        Complaint{"\"io_uring_create\"", "\"io_uring/create\"",
                  "x.manifest:9:34: a hook's tracepoint"},
        Complaint{"RIGHTS_READ", "RIGHTS_READ\n  scope: SCOPE_SESSION",
                  "a tracing program's maps are its grants'"},
        Complaint{"type: TRACING\n  delivery: DELIVERY_PROCESS",
                  "type: SOCKET_FILTER\n  function: \"x\"\n"
                  "  delivery: DELIVERY_PROGRAM\n  on_revoke: PASS",
                  "a hook is for programs of type TRACING"}));

TEST(HooksTest, AreNeeded) {
  std::string text = ManifestFor("");
  const size_t begin = text.find("hook {");
  text.erase(begin, text.find("map {") - begin);
  EXPECT_THAT(Manifest::Parse("x.manifest", "traced", text).status(),
              Refused(v1::REASON_FILE_INVALID,
                      "x.manifest:5:1: a tracing program needs hooks"));
}

}  // namespace
}  // namespace bpfgrant::daemon

// Drafts of manifests: for each of the project's own programs one that is
// admitted once a human has decided what only a human can.

#include "daemon/loader/inspection/draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/inspection/inspection.h"
#include "daemon/loader/kernel.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr std::chrono::seconds kLong{60};

std::string Shipped(const std::string& file) {
  std::ifstream stream(std::string(CATALOG_FOLDER) + "/" + file,
                       std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

v1::Inspection Inspect(const std::string& path) {
  const auto inspection = InspectFile(path, kLong);
  EXPECT_TRUE(inspection.ok()) << inspection.status();
  return inspection.ok() ? *inspection : v1::Inspection();
}

v1::Inspection InspectSample(const std::string& variant) {
  const TemporaryFolder folder;
  return Inspect(folder.Write("x.bpf.o", ObjectBytes(variant)));
}

absl::StatusOr<v1::Draft> DraftOf(const v1::Inspection& inspection,
                                  const std::string& name,
                                  const Manifest* known = nullptr) {
  return WriteDraft(inspection, {.name = name,
                                 .object = name + ".bpf.o",
                                 .function = "",
                                 .known = known});
}

// What a human fills in, line by line.
std::string Decide(std::string text) {
  return absl::StrReplaceAll(text,
                             {{"on_revoke: DECIDE", "on_revoke: DROP"},
                              {"sq_entries: DECIDE", "sq_entries: 64"},
                              {"cq_entries: DECIDE", "cq_entries: 128"},
                              {"memory_bytes: DECIDE", "memory_bytes: 4096"},
                              {"opcode: DECIDE", "opcode: \"NOP\""}});
}

class DraftRoundTripTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DraftRoundTripTest, IsAdmitted) {
  const std::string name = GetParam();
  const TemporaryFolder folder;
  const auto inspection =
      Inspect(folder.Write(name + ".bpf.o", Shipped(name + ".bpf.o")));
  const auto draft = DraftOf(inspection, name);
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->file(), name + ".manifest");
  EXPECT_THAT(draft->known(), IsEmpty());
  // As it is it is refused, at the first line that is open.
  const std::string path = folder.Write(draft->file(), draft->text());
  const auto folder_open = SafeDirectory::Open(folder.path(), {});
  ASSERT_TRUE(folder_open.ok());
  if (!draft->decision().empty()) {
    const auto open = Inspect(*folder_open, draft->file(), draft->text(), {});
    EXPECT_THAT(RefusalFor(*open), HasSubstr(draft->file() + ":"));
    EXPECT_THAT(RefusalFor(*open), HasSubstr("DECIDE"));
  }
  const std::string decided = Decide(draft->text());
  const auto program = Inspect(*folder_open, draft->file(), decided, {});
  ASSERT_TRUE(program->available()) << RefusalFor(*program) << decided;
  if (!HasBpf()) return;
  folder.Write(draft->file(), decided);
  const auto admitted = AdmitFrom(folder.path(), name);
  const bool is_loop = admitted->entry.description().detail().has_loop();
  if (is_loop && !ReadKernelFacts().io_uring_loops()) {
    EXPECT_EQ(ReasonFor(*admitted), v1::REASON_KERNEL_TOO_OLD);
  } else {
    EXPECT_TRUE(admitted->available()) << RefusalFor(*admitted);
  }
}

// A draft gives no more than what the approved manifest gives.
TEST_P(DraftRoundTripTest, GivesNoMoreThanTheApprovedOne) {
  const std::string name = GetParam();
  const std::string text = Shipped(name + ".manifest");
  const auto approved = Manifest::Parse("approved", name, text);
  ASSERT_TRUE(approved.ok()) << approved.status();
  const auto inspection =
      Inspect(absl::StrCat(CATALOG_FOLDER, "/", name, ".bpf.o"));
  const auto draft = DraftOf(inspection, name);
  ASSERT_TRUE(draft.ok()) << draft.status();
  const auto drafted = Manifest::Parse("draft", name, Decide(draft->text()));
  ASSERT_TRUE(drafted.ok()) << drafted.status();
  std::map<std::string, v1::Manifest::Map> maps;
  for (const auto& map : (*approved)->message().map()) maps[map.name()] = map;
  for (const auto& map : (*drafted)->message().map()) {
    ASSERT_TRUE(maps.contains(map.name())) << map.name();
    const v1::Manifest::Map& other = maps[map.name()];
    EXPECT_EQ(map.kind(), other.kind());
    if (map.handle().empty()) continue;
    EXPECT_FALSE(other.handle().empty()) << map.name();
    EXPECT_TRUE(map.rights() == other.rights() ||
                other.rights() == v1::RIGHTS_READ_WRITE)
        << map.name();
  }
  for (const int delivery : (*drafted)->message().program().delivery()) {
    EXPECT_THAT((*approved)->message().program().delivery(),
                ::testing::Contains(delivery));
  }
}

// What is known already is drafted as it is.
TEST_P(DraftRoundTripTest, KeepsWhatIsKnown) {
  const std::string name = GetParam();
  const auto known =
      Manifest::Parse("known.manifest", name, Shipped(name + ".manifest"));
  ASSERT_TRUE(known.ok()) << known.status();
  const auto inspection =
      Inspect(absl::StrCat(CATALOG_FOLDER, "/", name, ".bpf.o"));
  const auto draft = DraftOf(inspection, name, known->get());
  if (!(*known)->message().variant().empty()) {
    EXPECT_THAT(draft.status(),
                Refused(v1::REASON_INVALID_ARGUMENT, inspection.sha256()));
    return;
  }
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_EQ(draft->known(), "known.manifest");
  EXPECT_THAT(draft->decision(), IsEmpty());
  EXPECT_THAT(draft->diff(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Own, DraftRoundTripTest,
                         ::testing::Values("chain", "file_copy", "flow_filter",
                                           "frame_reader", "io_latency",
                                           "packet_sampler", "relay",
                                           "reuseport_steer", "tun_steering"),
                         [](const auto& info) { return info.param; });

TEST(DraftTest, TellsWhatChangesOfAKnownOne) {
  const std::string text = SampleManifest("sample", ObjectBytes("good"));
  const auto known = Manifest::Parse("known", "sample", text);
  ASSERT_TRUE(known.ok()) << known.status();
  const auto draft =
      DraftOf(InspectSample("extra_map"), "sample", known->get());
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_THAT(draft->diff(), HasSubstr("\n-sha256: \""));
  EXPECT_THAT(draft->diff(), HasSubstr("\n+sha256: \""));
  EXPECT_THAT(draft->diff(), HasSubstr("\n+map {\n"));
  EXPECT_THAT(draft->diff(), HasSubstr("\n   handle: \"events\"\n"));
}

TEST(DraftTest, OneOfSeveralByItsFunction) {
  const v1::Inspection several = InspectSample("several_programs");
  DraftRequest request{.name = "sample", .object = "x.bpf.o"};
  request.function = "sample";
  const auto draft = WriteDraft(several, request);
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_THAT(draft->text(), HasSubstr("function: \"sample\""));
  request.function = "absent";
  EXPECT_THAT(WriteDraft(several, request).status(),
              Refused(v1::REASON_OBJECT_MISMATCH, "no program 'absent'"));
}

TEST(DraftTest, MapsThatAreTurnedOver) {
  const TemporaryFolder folder;
  const auto inspection =
      Inspect(folder.Write("swap.bpf.o", ObjectBytes("swap_good")));
  const auto draft = DraftOf(inspection, "swap");
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_THAT(draft->text(), HasSubstr("swappable: true"));
  if (!HasBpf()) return;
  folder.Write(draft->file(), Decide(draft->text()));
  const auto admitted = AdmitFrom(folder.path(), "swap");
  EXPECT_TRUE(admitted->available()) << RefusalFor(*admitted);
}

// A file's words are in comments, too: none of them may begin a line.
TEST(DraftTest, NamesStayInTheirLines) {
  std::string bytes = ObjectBytes("good");
  // A symbol of the kernel's, or a map: what has a name in the string table.
  for (const std::string& name :
       {std::string("events"), std::string("config"), std::string("sample")}) {
    const std::string whole = '\0' + name + '\0';
    std::string hostile = whole;
    hostile[2] = '\n';
    for (size_t at = 0; (at = bytes.find(whole, at)) != std::string::npos;) {
      bytes.replace(at, whole.size(), hostile);
    }
  }
  const TemporaryFolder folder;
  const auto inspection =
      InspectFile(folder.Write("hostile.bpf.o", bytes), kLong);
  ASSERT_TRUE(inspection.ok()) << inspection.status();
  ASSERT_EQ(inspection->program_size(), 1);
  EXPECT_EQ(inspection->program(0).name(), "s_mple");
  EXPECT_THAT(inspection->DebugString(), Not(HasSubstr("\\n")));
}

// Nor if the reader was taken over.
TEST(DraftTest, RemarksAreOneLineEach) {
  v1::Inspection lying = InspectSample("good");
  lying.mutable_program(0)->set_holder("do\non_revoke: PASS");
  lying.mutable_program(0)->add_kfunc("f\nname: \"other\"");
  lying.add_danger()->set_where("x\nname: \"other\"");
  const auto draft = DraftOf(lying, "sample");
  ASSERT_TRUE(draft.ok()) << draft.status();
  EXPECT_THAT(draft->text(), Not(HasSubstr("\nname: \"other\"")));
  EXPECT_THAT(draft->text(), Not(HasSubstr("\non_revoke: PASS")));
  EXPECT_THAT(draft->text(), HasSubstr("x_name: \"other\""));
}

TEST(DraftTest, RefusesToGuess) {
  const v1::Inspection several = InspectSample("several_programs");
  EXPECT_THAT(DraftOf(several, "sample").status(),
              Refused(v1::REASON_OBJECT_MISMATCH, "--function"));
  const v1::Inspection good = InspectSample("good");
  EXPECT_THAT(DraftOf(good, "No-Name").status(),
              Refused(v1::REASON_INVALID_ARGUMENT, "--name"));
  EXPECT_THAT(DraftOf(InspectSample("no_gate"), "sample").status(),
              Refused(v1::REASON_GATE_MISSING, "gate.bpf.h"));
  EXPECT_THAT(DraftOf(InspectSample("pinned_map"), "sample").status(),
              Refused(v1::REASON_OBJECT_MISMATCH, "pinned"));
  v1::Inspection other = good;
  other.mutable_program(0)->set_type("xdp");
  EXPECT_THAT(DraftOf(other, "sample").status(),
              Refused(v1::REASON_OBJECT_MISMATCH, "sample (xdp)"));
  const auto known = Manifest::Parse(
      "known", "steer", SteerManifest("steer", ObjectBytes("steer")));
  ASSERT_TRUE(known.ok()) << known.status();
  EXPECT_THAT(DraftOf(good, "steer", known->get()).status(),
              Refused(v1::REASON_OBJECT_MISMATCH, "SK_REUSEPORT"));
}

}  // namespace
}  // namespace bpfgrant::daemon

#include "daemon/loader/drop_in.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/catalog.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/manifest.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kLoopManifest[] = R"(
name: "steps"
interface: "steps/1"
object: "steps.bpf.o"
sha256: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
program { type: IO_URING_LOOP delivery: DELIVERY_RING function: "bpfgrant_step" }
loop {
  sq_entries: 8
  cq_entries: 8
  opcode: "NOP"
  step_budget: 100
  trace: true
}
)";

absl::StatusOr<v1::Manifest> Apply(const std::string& name,
                                   const std::string& manifest,
                                   const std::string& drop_in,
                                   const std::string& objection = "") {
  const auto parsed = Manifest::Parse("/etc/x.manifest", name, manifest,
                                      {{"/etc/x.conf", drop_in, objection}});
  if (!parsed.ok()) return parsed.status();
  return (*parsed)->message();
}

absl::StatusOr<v1::Manifest> ApplyToSample(const std::string& drop_in,
                                           const std::string& objection = "") {
  return Apply("x", SampleManifest("x", "bytes"), drop_in, objection);
}

absl::StatusOr<v1::Manifest> ApplyToLoop(const std::string& drop_in) {
  return Apply("steps", kLoopManifest, drop_in);
}

TEST(DropInTest, Describes) {
  const auto manifest = ApplyToSample(
      "description: \"ours\" pool { ready: 0 } tag: \"net\" tag: \"lab\"");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->description(), "ours");
  EXPECT_TRUE(manifest->pool().has_ready());
  EXPECT_EQ(manifest->pool().ready(), 0u);
  EXPECT_THAT(manifest->tag(), ::testing::ElementsAre("net", "lab"));
}

TEST(DropInTest, Narrows) {
  const auto manifest = ApplyToSample(
      "program { delivery: DELIVERY_ATTACH }\n"
      "map { name: \"config\" rights: RIGHTS_READ }");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_THAT(manifest->program().delivery(),
              ::testing::ElementsAre(v1::DELIVERY_ATTACH));
  const auto loop = ApplyToLoop("loop { step_budget: 99 trace: false }");
  ASSERT_TRUE(loop.ok()) << loop.status();
  EXPECT_EQ(loop->loop().step_budget(), 99u);
  EXPECT_FALSE(loop->loop().trace());
}

TEST(DropInTest, LeavesAloneWhatItDoesNotName) {
  const auto plain = ApplyToSample("");
  const auto same = ApplyToSample("interface: \"x/1\"");
  ASSERT_TRUE(plain.ok() && same.ok());
  EXPECT_EQ(plain->SerializeAsString(), same->SerializeAsString());
  const auto loop = ApplyToLoop("loop { step_budget: 5 }");
  ASSERT_TRUE(loop.ok()) << loop.status();
  EXPECT_TRUE(loop->loop().trace());
}

TEST(DropInTest, NeverSaysWhatTheProgramIs) {
  for (const char* text :
       {"name: \"y\"", "object: \"y.bpf.o\"", "program { function: \"y\" }",
        "program { type: TRACING }", "program { on_revoke: PASS }",
        "program { target: TARGET_TUN }", "variant { name: \"y\" }",
        "hook { function: \"y\" }", "loop { opcode: \"READ\" }",
        "loop { memory_bytes: 4096 }", "map { name: \"config\" handle: \"y\" }",
        "map { name: \"config\" scope: SCOPE_SESSION }",
        "parameter { name: \"y\" }"}) {
    EXPECT_THAT(ApplyToSample(text).status(),
                Refused(v1::REASON_FILE_INVALID, "/etc/x.conf:1:"))
        << text;
  }
}

TEST(DropInTest, NeverWidens) {
  for (const auto& [text, what] :
       {std::pair{"program { delivery: DELIVERY_RING }", "delivery"},
        std::pair{"map { name: \"orders\" rights: RIGHTS_READ_WRITE }",
                  "fewer"},
        std::pair{"map { name: \"orders\" rights: RIGHTS_READ }", "fewer"},
        std::pair{"map { name: \"config\" }", "fewer"},
        std::pair{"map { name: \"events\" rights: RIGHTS_READ }", "kind"},
        std::pair{"map { name: \"none\" rights: RIGHTS_READ }", "no handle"},
        std::pair{"pool { ready: 1025 }", "1024"},
        std::pair{"tag: \"No\"", "tag"},
        std::pair{"loop { trace: true }", "no loop"},
        std::pair{"colour: 1", "colour"}}) {
    EXPECT_THAT(ApplyToSample(text).status(),
                Refused(v1::REASON_FILE_INVALID, what))
        << text;
  }
  for (const char* text :
       {"loop { step_budget: 101 }", "loop { step_budget: 0 }"}) {
    EXPECT_THAT(ApplyToLoop(text).status(),
                Refused(v1::REASON_FILE_INVALID, "100"))
        << text;
  }
}

TEST(DropInTest, SaysWhichManifestItIsFor) {
  const std::string right = Sha256({"bytes"});
  EXPECT_TRUE(ApplyToSample("sha256: \"" + right + "\"").ok());
  EXPECT_THAT(ApplyToSample("sha256: \"" + Sha256({"others"}) + "\"").status(),
              Refused(v1::REASON_DIGEST_MISMATCH, "another manifest"));
  EXPECT_THAT(ApplyToSample("interface: \"x/2\"").status(),
              Refused(v1::REASON_DIGEST_MISMATCH, "x/1"));
}

// One that nobody signed, where that is required.
TEST(DropInTest, UnsignedItMayNarrowAndNotAddATag) {
  const std::string why = "unsigned";
  EXPECT_TRUE(ApplyToSample("program { delivery: DELIVERY_ATTACH }", why).ok());
  EXPECT_THAT(ApplyToSample("tag: \"net\"", why).status(),
              Refused(v1::REASON_SIGNATURE, "/etc/x.conf:1:1"));
}

class DropInFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    auto admission = Admission::Create({}, {});
    ASSERT_TRUE(admission.ok()) << admission.status();
    admission_.emplace(*std::move(admission));
    vendor_.WriteProgram("sample");
  }
  std::string WriteDropIn(const TemporaryFolder& folder,
                          const std::string& name, const std::string& text) {
    const std::string path = folder.path() + "/sample.manifest.d";
    std::filesystem::create_directory(path);
    chmod(path.c_str(), 0755);
    return folder.Write("sample.manifest.d/" + name, text);
  }
  std::shared_ptr<const Program> Find() {
    auto catalog = Catalog::Read({vendor_.path(), local_.path()}, *admission_);
    EXPECT_TRUE(catalog.ok()) << catalog.status();
    return catalog->Find("sample");
  }
  std::string Description() {
    const auto program = Find();
    EXPECT_TRUE(program->available()) << RefusalFor(*program);
    return program->manifest->message().description();
  }
  void ExpectRefused(v1::Reason reason, const std::string& what) {
    const auto program = Find();
    ASSERT_NE(program, nullptr);
    EXPECT_FALSE(program->available());
    EXPECT_EQ(ReasonFor(*program), reason) << RefusalFor(*program);
    EXPECT_NE(RefusalFor(*program).find(what), std::string::npos)
        << RefusalFor(*program);
  }
  TemporaryFolder vendor_, local_;
  std::optional<Admission> admission_;
};

TEST_F(DropInFilesTest, OfAllFoldersInTheOrderOfTheirNames) {
  WriteDropIn(local_, "10-a.conf", "description: \"a\"");
  EXPECT_EQ(Description(), "a");
  WriteDropIn(vendor_, "20-b.conf", "description: \"b\"");
  EXPECT_EQ(Description(), "b");
  // The same name, in a later folder.
  WriteDropIn(local_, "20-b.conf", "description: \"c\"");
  EXPECT_EQ(Description(), "c");
  WriteDropIn(local_, "30-no-drop-in.txt", "rubbish");
  EXPECT_EQ(Description(), "c");
}

TEST_F(DropInFilesTest, ApplyToWhicheverManifestCounts) {
  WriteDropIn(vendor_, "10-a.conf", "description: \"a\"");
  local_.WriteProgram("sample", "answers_nothing");
  EXPECT_EQ(Description(), "a");
  // And make none of nothing.
  local_.Write("sample.manifest", "");
  EXPECT_EQ(Find(), nullptr);
}

TEST_F(DropInFilesTest, AnEmptyOneOrANullLinkMasks) {
  const std::string plain = Description();
  WriteDropIn(vendor_, "10-a.conf", "description: \"a\"");
  WriteDropIn(local_, "10-a.conf", "");
  EXPECT_EQ(Description(), plain);
  std::filesystem::remove(local_.path() + "/sample.manifest.d/10-a.conf");
  EXPECT_EQ(Description(), "a");
  std::filesystem::create_symlink(
      "/dev/null", local_.path() + "/sample.manifest.d/10-a.conf");
  EXPECT_EQ(Description(), plain);
}

TEST_F(DropInFilesTest, ABrokenOneIsNotPassedOver) {
  const std::string path =
      WriteDropIn(local_, "10-a.conf", "description: \"a\"");
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  ExpectRefused(v1::REASON_FILE_UNSAFE, "10-a.conf");
  WriteDropIn(local_, "10-a.conf", "\nrubbish");
  ExpectRefused(v1::REASON_FILE_INVALID, "10-a.conf:2:");
  std::filesystem::remove(path);
  std::filesystem::create_symlink("/etc/passwd", path);
  ExpectRefused(v1::REASON_FILE_UNSAFE, "symbolic link");
}

TEST_F(DropInFilesTest, NobodyElseWritesTheirFolder) {
  WriteDropIn(local_, "10-a.conf", "description: \"a\"");
  const std::string folder = local_.path() + "/sample.manifest.d";
  ASSERT_EQ(chmod(folder.c_str(), 0777), 0);
  ExpectRefused(v1::REASON_FILE_UNSAFE, "everybody can write");
  std::filesystem::remove_all(folder);
  std::filesystem::create_directory_symlink("/tmp", folder);
  ExpectRefused(v1::REASON_FILE_UNSAFE, "symbolic link");
}

TEST_F(DropInFilesTest, AnotherDropInIsAnotherProgram) {
  const auto plain = Find();
  EXPECT_EQ(Find()->entry.identity(), plain->entry.identity());
  WriteDropIn(local_, "10-a.conf", "pool { ready: 1 }");
  const auto changed = Find();
  EXPECT_NE(changed->entry.identity(), plain->entry.identity());
  EXPECT_EQ(changed->entry.pool_target(), 1u);
}

}  // namespace
}  // namespace bpfgrant::daemon

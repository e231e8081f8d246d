#include "daemon/loader/catalog.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "proto/wire/limits.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

class CatalogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    auto admission = Admission::Create({}, {});
    ASSERT_TRUE(admission.ok()) << admission.status();
    admission_.emplace(*std::move(admission));
  }
  Catalog Read() {
    auto catalog = Catalog::Read({vendor_.path(), local_.path(), "/tmp/absent"},
                                 *admission_);
    EXPECT_TRUE(catalog.ok()) << catalog.status();
    return *std::move(catalog);
  }
  void ExpectReason(const Catalog& catalog, const std::string& name,
                    v1::Reason reason) {
    const auto program = catalog.Find(name);
    ASSERT_NE(program, nullptr) << name;
    EXPECT_EQ(ReasonFor(*program), reason)
        << name << ": " << RefusalFor(*program);
    EXPECT_EQ(program->available(), reason == v1::REASON_UNSPECIFIED);
  }
  TemporaryFolder vendor_, local_;
  std::optional<Admission> admission_;
};

TEST_F(CatalogTest, BrokenEntriesTouchNoOther) {
  vendor_.WriteProgram("good");
  vendor_.WriteProgram("steer", "steer");
  vendor_.Write("rubbish.manifest", "\x01\x02\xff");
  vendor_.Write("unknown.manifest", "name: \"unknown\" colour: 1");
  vendor_.Write("nul.manifest", std::string("name: \"nul\"\0", 12));
  vendor_.Write("large.manifest", std::string(kMaxTextFileBytes + 1, '#'));
  vendor_.WriteProgram("writer", "writes_gate");
  vendor_.WriteProgram("lost");
  ASSERT_EQ(unlink((vendor_.path() + "/lost.bpf.o").c_str()), 0);
  vendor_.WriteProgram("open");
  ASSERT_EQ(chmod((vendor_.path() + "/open.manifest").c_str(), 0666), 0);
  ASSERT_EQ(
      symlink("good.manifest", (vendor_.path() + "/linked.manifest").c_str()),
      0);
  ASSERT_EQ(mkfifo((vendor_.path() + "/fifo.manifest").c_str(), 0644), 0);
  ASSERT_EQ(mkdir((vendor_.path() + "/folder.manifest").c_str(), 0755), 0);

  const Catalog catalog = Read();
  EXPECT_EQ(catalog.size(), 12u);
  ExpectReason(catalog, "good", v1::REASON_UNSPECIFIED);
  ExpectReason(catalog, "steer", v1::REASON_UNSPECIFIED);
  ExpectReason(catalog, "rubbish", v1::REASON_FILE_INVALID);
  ExpectReason(catalog, "unknown", v1::REASON_FILE_INVALID);
  ExpectReason(catalog, "nul", v1::REASON_FILE_INVALID);
  ExpectReason(catalog, "large", v1::REASON_TOO_LARGE);
  ExpectReason(catalog, "writer", v1::REASON_VERIFIER);
  ExpectReason(catalog, "lost", v1::REASON_FILE_INVALID);
  for (const char* name : {"open", "linked", "fifo", "folder"}) {
    ExpectReason(catalog, name, v1::REASON_FILE_UNSAFE);
  }
}

TEST_F(CatalogTest, LaterFoldersOverrideByFileName) {
  vendor_.WriteProgram("sample");
  local_.WriteProgram("sample", "answers_nothing");
  const Catalog catalog = Read();
  EXPECT_EQ(catalog.size(), 1u);
  EXPECT_EQ(catalog.Find("sample")->entry.description().file(),
            local_.path() + "/sample.manifest");
}

TEST_F(CatalogTest, AnEmptyFileMasks) {
  vendor_.WriteProgram("sample");
  local_.Write("sample.manifest", "");
  EXPECT_EQ(Read().Find("sample"), nullptr);
}

TEST_F(CatalogTest, ALinkToNullMasksAndNoOtherLinkDoes) {
  vendor_.WriteProgram("sample");
  const std::string path = local_.path() + "/sample.manifest";
  ASSERT_EQ(symlink("/dev/null", path.c_str()), 0);
  EXPECT_EQ(Read().Find("sample"), nullptr);
  ASSERT_EQ(lchown(path.c_str(), 65534, 65534), 0);
  ExpectReason(Read(), "sample", v1::REASON_FILE_UNSAFE);
  unlink(path.c_str());
  for (const char* target : {"/dev/nul", "/dev/null/", "/dev/zero"}) {
    ASSERT_EQ(symlink(target, path.c_str()), 0);
    ExpectReason(Read(), "sample", v1::REASON_FILE_UNSAFE);
    unlink(path.c_str());
  }
}

// What overrides keeps overriding, however broken it is.
TEST_F(CatalogTest, BrokenOverridesDoNotUncover) {
  vendor_.WriteProgram("sample");
  local_.Write("sample.manifest", "rubbish");
  ExpectReason(Read(), "sample", v1::REASON_FILE_INVALID);
  local_.Write("sample.manifest", "");
  ASSERT_EQ(chmod((local_.path() + "/sample.manifest").c_str(), 0666), 0);
  ExpectReason(Read(), "sample", v1::REASON_FILE_UNSAFE);
}

TEST_F(CatalogTest, AnUnsafeFolderMakesItsProgramsUnavailable) {
  vendor_.WriteProgram("sample");
  vendor_.WriteProgram("other");
  local_.WriteProgram("sample");
  ASSERT_EQ(chmod(local_.path().c_str(), 0777), 0);
  const Catalog catalog = Read();
  ExpectReason(catalog, "sample", v1::REASON_FILE_UNSAFE);
  ExpectReason(catalog, "other", v1::REASON_UNSPECIFIED);
}

TEST_F(CatalogTest, UnchangedEntriesAreNotVerifiedAgain) {
  vendor_.WriteProgram("one");
  vendor_.WriteProgram("two");
  vendor_.WriteProgram("three", "writes_gate");
  Read();
  EXPECT_EQ(admission_->trials(), 3);
  const Catalog again = Read();
  EXPECT_EQ(admission_->trials(), 3);
  ExpectReason(again, "one", v1::REASON_UNSPECIFIED);
  ExpectReason(again, "three", v1::REASON_VERIFIER);
  EXPECT_FALSE(again.Find("three")->entry.description().verifier_log().empty());
  vendor_.WriteProgram("two", "other_body");
  Read();
  EXPECT_EQ(admission_->trials(), 4);
  // What left the catalog is forgotten.
  unlink((vendor_.path() + "/one.manifest").c_str());
  Read();
  vendor_.WriteProgram("one");
  Read();
  EXPECT_EQ(admission_->trials(), 5);
}

TEST_F(CatalogTest, TooManyFilesRejectAll) {
  for (size_t i = 0; i <= kMaxFilesPerDirectory; ++i) {
    vendor_.Write(absl::StrCat("n", i, ".manifest"), "");
  }
  EXPECT_THAT(Catalog::Read({vendor_.path()}, *admission_).status(),
              Refused(v1::REASON_TOO_LARGE, "4096"));
}

TEST_F(CatalogTest, DescribesItselfByName) {
  vendor_.WriteProgram("b");
  vendor_.WriteProgram("a");
  // A file name that is no UTF-8 must not break the snapshot.
  vendor_.Write("\xff\xfe.manifest", "rubbish");
  CompiledRule rule;
  rule.set_name("r");
  const Snapshot snapshot = Read().Describe({rule});
  ASSERT_EQ(snapshot.entry_size(), 3);
  EXPECT_EQ(snapshot.entry(1).description().summary().name(), "a");
  EXPECT_EQ(snapshot.entry(2).description().summary().name(), "b");
  EXPECT_EQ(snapshot.rule(0).name(), "r");
  Snapshot copy;
  EXPECT_TRUE(copy.ParseFromString(snapshot.SerializeAsString()));
}

TEST_F(CatalogTest, NamesTheProgramsOfATag) {
  const auto write = [this](const std::string& name, const std::string& tags) {
    const std::string object = ObjectBytes("good");
    vendor_.Write(name + ".bpf.o", object);
    vendor_.Write(name + ".manifest", SampleManifest(name, object) + tags);
  };
  write("one", "tag: 'net'");
  write("two", "tag: ['io', 'net']");
  write("three", "");
  CompiledRule rule;
  rule.add_program("steer*");
  rule.add_tag("net");
  CompiledRule nothing;
  nothing.add_tag("absent");
  const Snapshot snapshot = Read().Describe({rule, nothing});
  EXPECT_THAT(snapshot.rule(0).program(),
              ::testing::ElementsAre("steer*", "one", "two"));
  EXPECT_THAT(snapshot.rule(1).program(), ::testing::IsEmpty());
}

}  // namespace
}  // namespace bpfgrant::daemon

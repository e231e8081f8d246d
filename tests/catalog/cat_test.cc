#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "daemon/loader/catalog_cat.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::HasSubstr;

class CatTest : public ::testing::Test {
 protected:
  absl::StatusOr<v1::CatEntry> Manifest() {
    return CatManifest("sample.manifest", {vendor_.path(), local_.path()});
  }
  absl::StatusOr<v1::CatEntry> Policy() {
    return CatPolicy("a.policy", {vendor_.path(), local_.path()});
  }
  void WriteDropIn(const TemporaryFolder& folder, const std::string& name,
                   const std::string& text) {
    const std::string path = folder.path() + "/sample.manifest.d";
    std::filesystem::create_directory(path);
    chmod(path.c_str(), 0755);
    folder.Write("sample.manifest.d/" + name, text);
  }
  void ExpectFile(const v1::CatEntry& entry, int i, const std::string& path,
                  v1::CatFile::State state) {
    ASSERT_LT(i, entry.file_size());
    EXPECT_EQ(entry.file(i).path(), path);
    EXPECT_EQ(entry.file(i).state(), state) << path;
    EXPECT_EQ(entry.file(i).text().empty(), state != v1::CatFile::COUNTS);
  }
  TemporaryFolder vendor_, local_;
};

TEST_F(CatTest, TellsWhatCameOfWhichFile) {
  vendor_.WriteProgram("sample");
  local_.WriteProgram("sample");
  WriteDropIn(vendor_, "10-a.conf", "description: \"a\"");
  WriteDropIn(local_, "10-a.conf", "description: \"b\"");
  WriteDropIn(vendor_, "20-b.conf", "pool { ready: 1 }");
  WriteDropIn(local_, "20-b.conf", "");
  WriteDropIn(vendor_, "30-c.conf", "tag: \"net\"");
  const auto entry = Manifest();
  ASSERT_TRUE(entry.ok()) << entry.status();
  const std::string file = "/sample.manifest", drop = file + ".d/";
  ASSERT_EQ(entry->file_size(), 7);
  ExpectFile(*entry, 0, vendor_.path() + file, v1::CatFile::REPLACED);
  ExpectFile(*entry, 1, local_.path() + file, v1::CatFile::COUNTS);
  ExpectFile(*entry, 2, vendor_.path() + drop + "10-a.conf",
             v1::CatFile::REPLACED);
  ExpectFile(*entry, 3, local_.path() + drop + "10-a.conf",
             v1::CatFile::COUNTS);
  ExpectFile(*entry, 4, vendor_.path() + drop + "20-b.conf",
             v1::CatFile::REPLACED);
  ExpectFile(*entry, 5, local_.path() + drop + "20-b.conf", v1::CatFile::MASKS);
  ExpectFile(*entry, 6, vendor_.path() + drop + "30-c.conf",
             v1::CatFile::COUNTS);
  EXPECT_EQ(entry->refusal(), "");
  EXPECT_EQ(entry->result().description(), "b");
  EXPECT_FALSE(entry->result().has_pool());
  EXPECT_THAT(entry->result().tag(), ::testing::ElementsAre("net"));
}

TEST_F(CatTest, AMaskedProgram) {
  vendor_.WriteProgram("sample");
  std::filesystem::create_symlink("/dev/null",
                                  local_.path() + "/sample.manifest");
  const auto entry = Manifest();
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_TRUE(entry->masked());
  EXPECT_FALSE(entry->has_result());
  ExpectFile(*entry, 1, local_.path() + "/sample.manifest", v1::CatFile::MASKS);
}

TEST_F(CatTest, SaysWhatIsWrong) {
  EXPECT_THAT(Manifest().status(),
              Refused(v1::REASON_UNKNOWN_PROGRAM, "sample.manifest"));
  vendor_.WriteProgram("sample");
  WriteDropIn(local_, "10-a.conf", "object: \"mine.bpf.o\"");
  const auto entry = Manifest();
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_EQ(entry->reason(), v1::REASON_FILE_INVALID);
  EXPECT_THAT(entry->refusal(), HasSubstr("10-a.conf:1:1"));
  EXPECT_FALSE(entry->has_result());
}

TEST_F(CatTest, APolicy) {
  EXPECT_THAT(Policy().status(),
              Refused(v1::REASON_INVALID_ARGUMENT, "a.policy"));
  vendor_.Write("a.policy", "# vendor's\n");
  local_.Write("a.policy", "# ours\n");
  const auto entry = Policy();
  ASSERT_TRUE(entry.ok()) << entry.status();
  ExpectFile(*entry, 0, vendor_.path() + "/a.policy", v1::CatFile::REPLACED);
  ExpectFile(*entry, 1, local_.path() + "/a.policy", v1::CatFile::COUNTS);
  EXPECT_EQ(entry->file(1).text(), "# ours\n");
  local_.Write("a.policy", "rubbish");
  EXPECT_THAT(Policy()->refusal(), HasSubstr("a.policy:1:"));
}

}  // namespace
}  // namespace bpfgrant::daemon

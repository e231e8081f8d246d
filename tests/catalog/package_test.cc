// A package manager puts the files of a program in place one by one, and a
// reload can come between any two. It reads each file once, so that all it can
// ever see is some of the files from before and the others from after: every
// such mix is tried here.

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/loader/digest.h"
#include "tests/catalog/signature_fixture.h"

namespace bpfgrant::daemon {
namespace {

// By name; of a package that is not there, none.
using Files = std::map<std::string, std::string>;

constexpr char kManifest[] = "sample.manifest", kObject[] = "sample.bpf.o",
               kDropIn[] = "sample.manifest.d/50-package.conf";

class PackageTest : public SignedCatalogTest {
 protected:
  void SetUp() override {
    SignedCatalogTest::SetUp();
    std::filesystem::create_directory(vendor_.path() + "/sample.manifest.d");
  }
  // `version` is the object's variant, the description, and what the drop-in,
  // which is for this version alone, adds as a tag.
  Files Version(const std::string& version) {
    const std::string object = ObjectBytes(version);
    Files files = {
        {kObject, object},
        {kManifest, SampleManifest("sample", object, "a sample", version)},
        {kDropIn,
         "sha256: \"" + Sha256({object}) + "\" tag: \"" + version + "\"\n"}};
    for (const std::string file : {kManifest, kDropIn}) {
      files[file + ".sig"] = SignatureLine(key_, "vendor", file, files[file]);
    }
    return files;
  }
  void Put(const Files& from, const std::string& file) {
    const std::string path = vendor_.path() + "/" + file;
    std::filesystem::remove(path);
    if (const auto found = from.find(file); found != from.end()) {
      vendor_.Write(file, found->second);
    }
  }
  // The version of what is admitted; "" if nothing is, and then with a reason.
  std::string Admitted(const std::string& policy) {
    const auto program = Read(policy).Find("sample");
    if (program == nullptr) return "";
    if (!program->available()) {
      EXPECT_NE(ReasonFor(*program), v1::REASON_UNSPECIFIED);
      EXPECT_FALSE(RefusalFor(*program).empty());
      return "";
    }
    const v1::Manifest& manifest = program->manifest->message();
    const std::string& version = manifest.description();
    // Whole: the object is that version's, and so is what dropped in.
    EXPECT_EQ(program->object.view(), ObjectBytes(version));
    for (const std::string& tag : manifest.tag()) EXPECT_EQ(tag, version);
    return version;
  }
  // Every mix of `before` and `after`. How often which version was admitted.
  std::map<std::string, int> TryMixes(const Files& before, const Files& after,
                                      const std::string& policy) {
    const std::vector<std::string> names = {kObject, kManifest, kDropIn,
                                            absl::StrCat(kManifest, ".sig"),
                                            absl::StrCat(kDropIn, ".sig")};
    std::map<std::string, int> admitted;
    for (unsigned mix = 0; mix < 1U << names.size(); ++mix) {
      for (size_t i = 0; i < names.size(); ++i) {
        Put((mix >> i & 1) != 0 ? after : before, names[i]);
      }
      ++admitted[Admitted(policy)];
    }
    return admitted;
  }
};

constexpr char kSigned[] = "signature { name: 's' program: '*' }";

TEST_F(PackageTest, AnUpgradeIsSeenWholeOrNotAtAll) {
  const auto admitted =
      TryMixes(Version("good"), Version("other_body"), kSigned);
  EXPECT_EQ(admitted, (std::map<std::string, int>{
                          {"", 30}, {"good", 1}, {"other_body", 1}}));
}

// The signatures do not matter: one version for each mix of them.
TEST_F(PackageTest, WithoutSignaturesTheDigestDoesIt) {
  const auto admitted = TryMixes(Version("good"), Version("other_body"), "");
  EXPECT_EQ(admitted, (std::map<std::string, int>{
                          {"", 24}, {"good", 4}, {"other_body", 4}}));
}

TEST_F(PackageTest, InstallingAndRemoving) {
  for (const bool installs : {true, false}) {
    const Files files = Version("good");
    const auto admitted = TryMixes(installs ? Files() : files,
                                   installs ? files : Files(), kSigned);
    // Whole, or before the drop-in is there.
    EXPECT_EQ(admitted.at("good"), 3);
    EXPECT_EQ(admitted.size(), 2u);
  }
}

// What the digest is for: without it a mix is admitted.
TEST_F(PackageTest, WithoutTheDigestAMixIsAdmitted) {
  Mitigations off;
  off.digest_check = false;
  auto admission = Admission::Create({}, off);
  ASSERT_TRUE(admission.ok()) << admission.status();
  admission_.emplace(*std::move(admission));
  for (const auto& [name, bytes] : Version("good")) vendor_.Write(name, bytes);
  Put(Version("other_body"), kObject);
  const auto program = Read(kSigned).Find("sample");
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_EQ(program->manifest->message().description(), "good");
  EXPECT_EQ(program->object.view(), ObjectBytes("other_body"));
}

}  // namespace
}  // namespace bpfgrant::daemon

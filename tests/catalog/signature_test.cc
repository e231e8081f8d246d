#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "tests/catalog/signature_fixture.h"

namespace bpfgrant::daemon {
namespace {

// With another digit of the signature in `line`, the `back`th from the last
// one; behind that are two of padding and the newline.
std::string Bent(std::string line, size_t back) {
  char& digit = line[line.size() - 4 - back];
  digit = digit == 'B' ? 'C' : 'B';
  return line;
}

class SignatureTest : public SignedCatalogTest {
 protected:
  void SetUp() override {
    SignedCatalogTest::SetUp();
    if (IsSkipped()) return;
    vendor_.WriteProgram("sample");
    Sign("sample.manifest");
  }
  void WriteSignatures(const std::string& text) {
    vendor_.Write("sample.manifest.sig", text);
  }
  std::string line() const { return LineFor("sample.manifest"); }
};

TEST_F(SignatureTest, OfAKeyThatCounts) { ExpectTaken(Read()); }

TEST_F(SignatureTest, IsAskedForByRulesOnly) {
  std::filesystem::remove(vendor_.path() + "/sample.manifest.sig");
  ExpectUnsigned(Read(), "there is no such file");
  for (const char* policy : {"", "signature { name: 's' program: 'other' }",
                             "signature { name: 's' program: 'sampl' }"}) {
    ExpectTaken(Read(policy));
  }
  ExpectUnsigned(Read("signature { name: 's' program: 'sam*e' }"),
                 "signature rule 's' (p:1)");
  const std::string here = "directory: '" + vendor_.path() + "'";
  const std::string there = "directory: '" + local_.path() + "'";
  ExpectUnsigned(Read("signature { name: 's' " + here + " }"), "'s'");
  ExpectTaken(Read("signature { name: 's' " + there + " }"));
  ExpectTaken(Read("signature { name: 's' " + here + " program: 'other' }"));
  ExpectUnsigned(Read("signature { name: 's' " + here + " program: '*' }"),
                 "'s'");
}

TEST_F(SignatureTest, EveryRuleIsMetByOneOfItsKeys) {
  const PrivateKey other = NewKey();
  WriteKey(local_keys_, "other", other);
  const std::string both =
      "signature { name: 'a' program: '*' key: 'vendor' }"
      "signature { name: 'b' program: '*' key: ['other', 'third'] }";
  ExpectUnsigned(Read(both), "it takes key other, third");
  WriteSignatures(line() + SignatureLine(other, "other", "sample.manifest",
                                         BytesOf("sample.manifest")));
  ExpectTaken(Read(both));
}

TEST_F(SignatureTest, OneThatDoesNotCountSpoilsNoOther) {
  const PrivateKey other = NewKey();
  const std::string stranger = SignatureLine(
      other, "stranger", "sample.manifest", BytesOf("sample.manifest"));
  WriteSignatures(stranger + line());
  ExpectTaken(Read());
  WriteSignatures(stranger);
  ExpectUnsigned(Read(), "there is no key 'stranger'");
}

// Without the check each of these would be a program that nobody signed.
TEST_F(SignatureTest, MadeByAnotherKey) {
  WriteSignatures(SignatureLine(NewKey(), "vendor", "sample.manifest",
                                BytesOf("sample.manifest")));
  ExpectUnsigned(Read(), "key 'vendor' did not sign this");
  ExpectTaken(Read(""));
}

TEST_F(SignatureTest, OfAnotherManifest) {
  vendor_.WriteProgram("other");
  WriteSignatures(LineFor("other.manifest"));
  ExpectUnsigned(Read(), "did not sign this");
}

// The name is signed with the bytes, and the domain before both.
TEST_F(SignatureTest, OfTheSameBytesForSomethingElse) {
  const std::string bytes = BytesOf("sample.manifest");
  WriteSignatures(SignatureLine(key_, "vendor", "sample.manifest.d/a", bytes));
  ExpectUnsigned(Read(), "did not sign this");
  WriteSignatures(FormatSignature({"vendor", key_.Sign(bytes).value()}));
  ExpectUnsigned(Read(), "did not sign this");
}

TEST_F(SignatureTest, OfAnotherVersion) {
  const std::string old_line = line();
  const std::string old_manifest = BytesOf("sample.manifest");
  vendor_.WriteProgram("sample", "answers_nothing");
  // The old signature beside the new manifest.
  WriteSignatures(old_line);
  ExpectUnsigned(Read(), "did not sign this");
  Sign("sample.manifest");
  ExpectTaken(Read());
  // The old manifest with its signature, beside the new object.
  vendor_.Write("sample.manifest", old_manifest);
  WriteSignatures(old_line);
  EXPECT_EQ(ReasonFor(*Read().Find("sample")), v1::REASON_DIGEST_MISMATCH);
}

TEST_F(SignatureTest, ThatIsNoSignature) {
  const std::string good = line();
  for (const std::string& text :
       {good.substr(0, good.size() - 1), good.substr(0, good.size() / 2),
        good.substr(0, good.size() / 2) + "\n", std::string("vendor\n"),
        std::string("vendor \n"), "vendor  " + good.substr(7),
        "no/name " + good.substr(7), good + "\n", " " + good, good + good,
        std::string("\0", 1) + good}) {
    WriteSignatures(text);
    ExpectUnsigned(Read(), "sample.manifest.sig:");
  }
  // The last digit has bits that nothing stands for: there is one form.
  WriteSignatures(Bent(good, 0));
  ExpectUnsigned(Read(), "sample.manifest.sig:1: ");
  WriteSignatures(Bent(good, 1));
  ExpectUnsigned(Read(), "did not sign this");
  WriteSignatures("");
  ExpectUnsigned(Read(), "no key signed it");
  WriteSignatures(std::string(kMaxSignatureFileBytes + 1, 'x'));
  ExpectUnsigned(Read(), "16384");
}

TEST_F(SignatureTest, InAnUnsafeFile) {
  const std::string path = vendor_.path() + "/sample.manifest.sig";
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  ExpectUnsigned(Read(), "everybody can write it");
  std::filesystem::remove(path);
  std::filesystem::create_symlink("/etc/hostname", path);
  ExpectUnsigned(Read(), "symbolic link");
}

TEST_F(SignatureTest, IsBesideTheManifestThatCounts) {
  local_.WriteProgram("sample");
  ExpectUnsigned(Read(), local_.path());
  local_.Write("sample.manifest.sig", line());
  ExpectTaken(Read());
  local_.Write("sample.manifest", "");
  EXPECT_EQ(Read().Find("sample"), nullptr);
}

TEST_F(SignatureTest, AKeyThatWasTakenAway) {
  const std::string path = vendor_keys_.path() + "/vendor.pub";
  std::filesystem::rename(path, path + ".off");
  ExpectUnsigned(Read(), "there is no key 'vendor'");
  std::filesystem::rename(path + ".off", path);
  ExpectTaken(Read());
  local_keys_.Write("vendor.pub", "");
  ExpectUnsigned(Read(), "there is no key 'vendor'");
  std::filesystem::remove(local_keys_.path() + "/vendor.pub");
  std::filesystem::create_symlink("/dev/null",
                                  local_keys_.path() + "/vendor.pub");
  ExpectUnsigned(Read(), "there is no key 'vendor'");
  std::filesystem::remove(local_keys_.path() + "/vendor.pub");
  // Another one under its name.
  WriteKey(local_keys_, "vendor", NewKey());
  ExpectUnsigned(Read(), "did not sign this");
}

TEST_F(SignatureTest, AKeyThatIsNone) {
  const std::string pem = key_.PublicPem().value();
  for (const std::string& text :
       {std::string("rubbish"), pem.substr(0, 60), pem + pem, "x" + pem,
        key_.PrivatePem().value(),
        // Of X25519, which signs nothing.
        std::string(
            "-----BEGIN PUBLIC KEY-----\n"
            "MCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo"
            "=\n-----END PUBLIC KEY-----\n")}) {
    vendor_keys_.Write("vendor.pub", text);
    ExpectUnsigned(Read(), "vendor.pub: not ");
  }
}

TEST_F(SignatureTest, AKeyInAnUnsafeFile) {
  const std::string path = vendor_keys_.path() + "/vendor.pub";
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  ExpectUnsigned(Read(), "everybody can write it");
  // The attack: everybody's key signs.
  Mitigations off;
  off.file_safety = false;
  ExpectTaken(Read("signature { name: 's' program: '*' }", off));
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  ASSERT_EQ(chown(path.c_str(), 65534, 0), 0);
  ExpectUnsigned(Read(), "65534");
  ASSERT_EQ(chown(path.c_str(), 0, 0), 0);
  ASSERT_EQ(chmod(vendor_keys_.path().c_str(), 0777), 0);
  ExpectUnsigned(Read(), "everybody can write it");
}

TEST_F(SignatureTest, OfDropInsThatWiden) {
  const std::string folder = vendor_.path() + "/sample.manifest.d";
  std::filesystem::create_directory(folder);
  ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
  const std::string drop_in = "sample.manifest.d/10-a.conf";
  vendor_.Write(drop_in, "description: 'less' pool { ready: 0 }");
  ExpectTaken(Read());
  vendor_.Write(drop_in, "tag: 'net'");
  ExpectUnsigned(Read(), "10-a.conf:1:1");
  Sign(drop_in);
  const Catalog catalog = Read();
  ExpectTaken(catalog);
  EXPECT_EQ(catalog.Find("sample")->manifest->message().tag(0), "net");
  // Of another file.
  vendor_.Write(drop_in + ".sig", line());
  ExpectUnsigned(Read(), "did not sign this");
}

}  // namespace
}  // namespace bpfgrant::daemon

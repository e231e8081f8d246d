// A catalog whose programs have to be signed, with a key that signs them.

#ifndef TESTS_CATALOG_SIGNATURE_FIXTURE_H_
#define TESTS_CATALOG_SIGNATURE_FIXTURE_H_

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/loader/catalog.h"
#include "daemon/loader/ed25519.h"
#include "daemon/loader/key_ring.h"
#include "daemon/loader/signature_check.h"
#include "daemon/loader/signature_file.h"
#include "policy/signatures.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {

inline PrivateKey NewKey() {
  auto key = PrivateKey::Generate();
  EXPECT_TRUE(key.ok()) << key.status();
  return *std::move(key);
}

// A line of a signature file.
inline std::string SignatureLine(const PrivateKey& key, const std::string& name,
                                 const std::string& file,
                                 const std::string& bytes) {
  const auto signature = key.Sign(SignedBytes(file, bytes));
  EXPECT_TRUE(signature.ok()) << signature.status();
  return FormatSignature({name, *signature});
}

class SignedCatalogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    auto admission = Admission::Create({}, {});
    ASSERT_TRUE(admission.ok()) << admission.status();
    admission_.emplace(*std::move(admission));
    WriteKey(vendor_keys_, "vendor", key_);
  }

  static void WriteKey(const TemporaryFolder& folder, const std::string& name,
                       const PrivateKey& key) {
    folder.Write(name + ".pub", key.PublicPem().value());
  }
  std::string BytesOf(const std::string& file) const {
    std::ifstream stream(vendor_.path() + "/" + file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  std::string LineFor(const std::string& file) const {
    return SignatureLine(key_, "vendor", file, BytesOf(file));
  }
  // Has the vendor sign a file of the vendor's folder.
  void Sign(const std::string& file) {
    vendor_.Write(file + ".sig", LineFor(file));
  }

  // With what the policy wants signed.
  Catalog Read(
      const std::string& policy = "signature { name: 's' program: '*' }",
      const Mitigations& mitigations = {}) {
    const std::vector<std::string> folders = {vendor_.path(), local_.path()};
    auto rules = policy::SignatureRules::Compile({{"p", policy}}, folders);
    EXPECT_TRUE(rules.ok()) << rules.status();
    auto keys =
        KeyRing::Read({vendor_keys_.path(), local_keys_.path()}, mitigations);
    EXPECT_TRUE(keys.ok()) << keys.status();
    auto catalog =
        Catalog::Read(folders, *admission_,
                      SignatureCheck(*std::move(rules), *std::move(keys)));
    EXPECT_TRUE(catalog.ok()) << catalog.status();
    return *std::move(catalog);
  }
  static void ExpectTaken(const Catalog& catalog,
                          const std::string& name = "sample") {
    const auto program = catalog.Find(name);
    ASSERT_NE(program, nullptr);
    EXPECT_TRUE(program->available()) << RefusalFor(*program);
  }
  static void ExpectUnsigned(const Catalog& catalog, const std::string& what) {
    const auto program = catalog.Find("sample");
    ASSERT_NE(program, nullptr);
    EXPECT_EQ(ReasonFor(*program), v1::REASON_SIGNATURE)
        << RefusalFor(*program);
    EXPECT_NE(RefusalFor(*program).find(what), std::string::npos)
        << RefusalFor(*program);
  }

  const PrivateKey key_ = NewKey();
  TemporaryFolder vendor_, local_, vendor_keys_, local_keys_;
  std::optional<Admission> admission_;
};

}  // namespace bpfgrant::daemon

#endif  // TESTS_CATALOG_SIGNATURE_FIXTURE_H_

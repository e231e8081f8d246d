// A program that needs a signature, and what becomes of those who hold it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/loader/ed25519.h"
#include "daemon/loader/signature_file.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/private_folder.h"
#include "tests/privileged/client_fixture.h"
#include "tests/privileged/nobody.h"

namespace bpfgrant::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SignatureRuleTest : public ClientTest {
 protected:
  static void Write(const std::filesystem::path& path,
                    const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
    ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  }
  // Everybody may have everything, of which packet_sampler must be signed.
  void StartSigned(const std::vector<std::string>& without = {}) {
    DaemonOptions options;
    options.policy = absl::StrCat(
        kAllowAll, "signature { name: \"s\" program: \"packet_sampler\" }");
    options.programs = kTwoPrograms;
    options.arguments = {"--keys", keys_};
    options.without = without;
    ASSERT_NO_FATAL_FAILURE(Start(options));
    Connect(client_);
  }
  void Sign() {
    const std::string file = "packet_sampler.manifest";
    const auto key = daemon::PrivateKey::Generate();
    ASSERT_TRUE(key.ok()) << key.status();
    Write(keys_ / "vendor.pub", key->PublicPem().value());
    std::ifstream stream(daemon().catalog_directory() / file, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    Write(daemon().catalog_directory() / (file + ".sig"),
          daemon::FormatSignature(
              {"vendor", key->Sign(daemon::SignedBytes(file, bytes)).value()}));
  }
  uint32_t RevokedByReload() {
    const auto reply = administrator().Reload();
    EXPECT_TRUE(reply.ok()) << reply.status();
    return reply->revoked();
  }
  const PrivateFolder folder_;
  const std::filesystem::path keys_ = folder_.path();
  Nobody client_;
};

TEST_F(SignatureRuleTest, AnUnsignedProgramIsNotHandedOut) {
  ASSERT_NO_FATAL_FAILURE(StartSigned());
  EXPECT_EQ(client_.Ask("acquire packet_sampler program"),
            "refused program-unavailable");
  client_.Acquire("reuseport_steer program");
  const auto described = administrator().Describe("packet_sampler");
  ASSERT_TRUE(described.ok()) << described.status();
  EXPECT_EQ(described->summary().reason(), v1::REASON_SIGNATURE);
  EXPECT_THAT(described->refusal(), HasSubstr("test.policy:"));
}

// The attack: whoever can put files into the catalog has them handed out.
TEST_F(SignatureRuleTest, WithoutTheMitigationItIs) {
  ASSERT_NO_FATAL_FAILURE(StartSigned({"signatures"}));
  client_.Acquire("packet_sampler program");
}

TEST_F(SignatureRuleTest, TakingTheKeyAwayWithdrawsWhatItSigned) {
  ASSERT_NO_FATAL_FAILURE(StartSigned());
  Sign();
  EXPECT_EQ(RevokedByReload(), 0u);
  EXPECT_THAT(administrator().Describe("packet_sampler")->signed_by(),
              ElementsAre("vendor"));
  EXPECT_THAT(Status().key_directory(), ElementsAre(keys_.string()));
  client_.Acquire("packet_sampler program");
  client_.Acquire("reuseport_steer program");
  EXPECT_EQ(RevokedByReload(), 0u);
  std::filesystem::remove(keys_ / "vendor.pub");
  EXPECT_EQ(RevokedByReload(), 1u);
  EXPECT_EQ(client_.Ask("ended 0"), "ok withdrawn");
  EXPECT_EQ(client_.Ask("ended 1"), "ok live");
  EXPECT_EQ(client_.Ask("acquire packet_sampler program"),
            "refused program-unavailable");
}

TEST_F(SignatureRuleTest, ARuleAboutNoDirectoryRejectsTheReload) {
  ASSERT_NO_FATAL_FAILURE(StartSigned());
  daemon().WritePolicy("signature { name: \"t\" directory: \"/nowhere\" }",
                       "other.policy");
  const auto reply = administrator().Reload();
  EXPECT_EQ(ReasonOf(reply.status()), v1::REASON_RELOAD_REJECTED);
  EXPECT_THAT(reply.status().ToString(),
              HasSubstr(daemon().catalog_directory().string()));
}

}  // namespace
}  // namespace bpfgrant::test

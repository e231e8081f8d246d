// The administrator's limits on a daemon that runs.

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/privileged/client_fixture.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

class AdmissionTest : public ClientTest {
 protected:
  // Value and place of a limit in force, as `status` tells them.
  std::string Limit(const std::string& name) {
    const v1::StatusReply status = Status();
    for (const v1::LimitInForce& limit : status.admission_limit()) {
      if (limit.name() == name) return limit.value() + " " + limit.place();
    }
    return "none";
  }
  v1::DescribeReply Describe(const std::string& program) {
    auto description = administrator().Describe(program);
    EXPECT_TRUE(description.ok()) << description.status();
    return description.ok() ? *std::move(description) : v1::DescribeReply();
  }
};

TEST_F(AdmissionTest, LimitsCountFromTheReloadOn) {
  ASSERT_NO_FATAL_FAILURE(Start({.programs = kTwoPrograms}));
  Nobody client;
  Connect(client);
  EXPECT_EQ(client.Acquire("packet_sampler program").delivery, "program");
  EXPECT_EQ(Limit("program.maps"), "64 built in");

  daemon().WriteAdmission("map_type: [\"ARRAY\", \"REUSEPORT_SOCKARRAY\"]\n");
  EXPECT_TRUE(administrator().Reload().ok());
  EXPECT_THAT(Limit("map_type"), HasSubstr("admission.conf:1:"));
  const v1::DescribeReply refused = Describe("packet_sampler");
  EXPECT_EQ(refused.summary().reason(), v1::REASON_ADMISSION_LIMIT);
  EXPECT_THAT(refused.refusal(), HasSubstr("its map_type 'RINGBUF' is not"));
  EXPECT_THAT(refused.refusal(), HasSubstr("admission.conf:1:"));
  EXPECT_TRUE(Describe("reuseport_steer").summary().available());
  EXPECT_EQ(client.Ask("acquire packet_sampler program"),
            "refused program-unavailable");
}

TEST_F(AdmissionTest, ABrokenFileLeavesWhatIsInForce) {
  ASSERT_NO_FATAL_FAILURE(Start({.programs = kTwoPrograms}));
  daemon().WriteAdmission("program { maps: 8 }\n");
  ASSERT_TRUE(administrator().Reload().ok());
  daemon().WriteAdmission("program { maps: 0 }\nhelper: \"no_such_helper\"\n");
  EXPECT_FALSE(administrator().Reload().ok());
  EXPECT_THAT(Limit("program.maps"), HasSubstr("8 "));
  EXPECT_TRUE(Describe("packet_sampler").summary().available());
  EXPECT_THAT(Status().last_reload(),
              HasSubstr("admission.conf:2:1: there is no helper"));
}

TEST_F(AdmissionTest, RulesThatTrustOthersRejectTheReload) {
  ASSERT_NO_FATAL_FAILURE(Start({.programs = kTwoPrograms}));
  daemon().WriteAdmission("trusted_user: \"root\"\n");
  const auto rejected = administrator().Reload();
  EXPECT_THAT(std::string(rejected.status().message()),
              HasSubstr("rule 'all' trusts others than may be trusted"));
}

}  // namespace
}  // namespace bpfgrant::test

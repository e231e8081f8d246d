#include "daemon/mitigations.h"

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(MitigationsTest, AllAreOnFromTheStart) {
  EXPECT_THAT(Mitigations().Off(), IsEmpty());
}

TEST(MitigationsTest, SwitchesOffWhatIsNamedAndNothingElse) {
  Mitigations mitigations;
  const std::vector<std::string> names = {"quotas", "gate_nonce"};
  ASSERT_TRUE(mitigations.Without(names).ok());
  EXPECT_FALSE(mitigations.quotas);
  EXPECT_FALSE(mitigations.gate_nonce);
  EXPECT_TRUE(mitigations.sender_check);
  EXPECT_THAT(mitigations.Off(), ElementsAre("gate_nonce", "quotas"));
}

TEST(MitigationsTest, AnUnknownNameChangesNothing) {
  Mitigations mitigations;
  const std::vector<std::string> names = {"quotas", "quota"};
  const absl::Status status = mitigations.Without(names);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("'quota'"));
  EXPECT_THAT(mitigations.Off(), IsEmpty());
}

}  // namespace
}  // namespace bpfgrant::daemon

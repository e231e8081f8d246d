#include "proto/refusal/refusal.h"

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"

namespace bpfgrant {
namespace {

using ::testing::EndsWith;
using ::testing::StartsWith;

// Every reason there is but "unspecified".
std::vector<v1::Reason> AllReasons() {
  std::vector<v1::Reason> reasons;
  const auto* descriptor = v1::Reason_descriptor();
  for (int i = 0; i < descriptor->value_count(); ++i) {
    const int number = descriptor->value(i)->number();
    if (number != v1::REASON_UNSPECIFIED) {
      reasons.push_back(static_cast<v1::Reason>(number));
    }
  }
  return reasons;
}

v1::Verdict Denial() {
  v1::Verdict verdict;
  verdict.set_reason(v1::REASON_DENIED_BY_RULE);
  verdict.set_rule("no-guests");
  verdict.set_file("site.policy");
  verdict.set_line(7);
  return verdict;
}

TEST(EveryReasonTest, SaysWhatToDoNextInASentence) {
  for (const v1::Reason reason : AllReasons()) {
    SCOPED_TRACE(v1::Reason_Name(reason));
    const std::string next(NextStep(reason));
    ASSERT_FALSE(next.empty()) << "no row in the table";
    EXPECT_THAT(next, EndsWith("."));
    EXPECT_TRUE(next[0] == '`' || (next[0] >= 'A' && next[0] <= 'Z')) << next;
  }
}

TEST(EveryReasonTest, TravelsAsAStatusAndBack) {
  for (const v1::Reason reason : AllReasons()) {
    SCOPED_TRACE(v1::Reason_Name(reason));
    const absl::Status status = Refuse(reason, "it happened to 'x'");
    EXPECT_FALSE(status.ok());
    EXPECT_NE(status.code(), absl::StatusCode::kUnknown);
    EXPECT_EQ(ReasonOf(status), reason);
    EXPECT_EQ(std::string(status.message()),
              "it happened to 'x'. " + std::string(NextStep(reason)));

    const v1::Refusal refusal = RefusalOf(status);
    EXPECT_EQ(refusal.reason(), reason);
    EXPECT_EQ(refusal.message(), std::string(status.message()));
    EXPECT_FALSE(refusal.has_verdict());
    EXPECT_EQ(StatusOf(refusal), status);
  }
}

TEST(EveryReasonTest, IsNotToldTwiceWhatToDo) {
  for (const v1::Reason reason : AllReasons()) {
    SCOPED_TRACE(v1::Reason_Name(reason));
    const absl::Status once = Refuse(reason, "it happened");
    const absl::Status twice = Refuse(reason, std::string(once.message()));
    EXPECT_EQ(twice.message(), once.message());
  }
}

TEST(ReasonNameTest, IsShortAndNoTwoAreTheSame) {
  EXPECT_EQ(ReasonName(v1::REASON_DENIED_BY_RULE), "denied-by-rule");
  EXPECT_EQ(ReasonName(v1::REASON_QUOTA), "quota");
  EXPECT_EQ(ReasonName(static_cast<v1::Reason>(12345)), "reason-12345");
  std::set<std::string> names;
  for (const v1::Reason reason : AllReasons()) names.insert(ReasonName(reason));
  EXPECT_EQ(names.size(), AllReasons().size());
}

TEST(RefusalTest, UsesTheCodesThatGrpcClientsKnow) {
  EXPECT_EQ(Refuse(v1::REASON_DENIED_BY_RULE, "x").code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Refuse(v1::REASON_QUOTA, "x").code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Refuse(v1::REASON_UNKNOWN_PROGRAM, "x").code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(Refuse(v1::REASON_NO_SESSION, "x").code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Refuse(v1::REASON_BUSY, "x").code(),
            absl::StatusCode::kUnavailable);
}

TEST(RefusalTest, EndsTheMessageOnce) {
  const std::string next(NextStep(v1::REASON_BUSY));
  const auto message = [](const char* what) {
    return std::string(Refuse(v1::REASON_BUSY, what).message());
  };
  EXPECT_EQ(message("no memory"), "no memory. " + next);
  EXPECT_EQ(message("no memory."), "no memory. " + next);
  EXPECT_EQ(message("no memory!"), "no memory! " + next);
  EXPECT_EQ(message(""), next);
}

TEST(RefusalTest, CarriesTheVerdict) {
  const absl::Status status = RefuseByVerdict(Denial(), "uid 7 may not");
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), StartsWith("uid 7 may not. "));
  const v1::Refusal refusal = RefusalOf(StatusOf(RefusalOf(status)));
  EXPECT_EQ(refusal.reason(), v1::REASON_DENIED_BY_RULE);
  EXPECT_EQ(refusal.verdict().SerializeAsString(),
            Denial().SerializeAsString());
  EXPECT_EQ(refusal.message(), std::string(status.message()));
}

TEST(RefusalTest, AVerdictWithoutAReasonIsTheDefault) {
  EXPECT_EQ(ReasonOf(RefuseByVerdict(v1::Verdict(), "no")),
            v1::REASON_DENIED_BY_DEFAULT);
}

TEST(RefusalTest, NeverRefusesWithAYes) {
  v1::Verdict yes;
  yes.set_allowed(true);
  const absl::Status status = RefuseByVerdict(yes, "odd");
  EXPECT_EQ(ReasonOf(status), v1::REASON_INTERNAL);
  EXPECT_FALSE(RefusalOf(status).has_verdict());
}

TEST(RefusalTest, UnspecifiedIsNoReasonToRefuseFor) {
  EXPECT_EQ(ReasonOf(Refuse(v1::REASON_UNSPECIFIED, "x")), v1::REASON_INTERNAL);
}

TEST(RefusalTest, OtherStatusesAreInternalInTheirOwnWords) {
  const v1::Refusal refusal = RefusalOf(absl::NotFoundError("no such thing"));
  EXPECT_EQ(refusal.reason(), v1::REASON_INTERNAL);
  EXPECT_EQ(refusal.message(), "no such thing");
}

TEST(RefusalTest, APayloadThatDoesNotParseIsNone) {
  absl::Status status = Refuse(v1::REASON_QUOTA, "full");
  status.SetPayload("type.bpfgrant/Refusal", absl::Cord("\xff\xff"));
  EXPECT_EQ(ReasonOf(status), v1::REASON_INTERNAL);
  EXPECT_FALSE(RefusalOf(status).has_verdict());
}

TEST(RefusalTest, OkHasNoReason) {
  EXPECT_EQ(ReasonOf(absl::OkStatus()), v1::REASON_UNSPECIFIED);
}

TEST(RefusalTest, ReasonsOfALaterReleaseAreKept) {
  v1::Refusal refusal;
  refusal.set_reason(static_cast<v1::Reason>(12345));
  refusal.set_message("news");
  const absl::Status status = StatusOf(refusal);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_EQ(ReasonOf(status), 12345);
  EXPECT_EQ(std::string(status.message()), "news");
}

// A complaint quotes what it is about, and has to fit a frame all the same.
TEST(RefusalTest, LongMessagesAreCutAtACharacter) {
  std::string message = "x";
  while (message.size() < 100'000) message += "\u00e4";
  const v1::Refusal refusal =
      RefusalOf(Refuse(v1::REASON_FILE_INVALID, message));
  EXPECT_LT(refusal.ByteSizeLong(), 2 * kMaxMessageBytes);
  // protobuf parses no string that is not UTF-8.
  v1::Refusal parsed;
  EXPECT_TRUE(parsed.ParseFromString(refusal.SerializeAsString()));
  EXPECT_EQ(parsed.message(), refusal.message());
}

}  // namespace
}  // namespace bpfgrant

#include "daemon/broker/ledger.h"

#include <cstdint>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bpfgrant::broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

Grant Entry(const std::string& rule, uid_t uid, const std::string& program) {
  Grant grant;
  grant.info.set_rule(rule);
  grant.info.set_uid(uid);
  grant.info.set_program(program);
  return grant;
}

TEST(LedgerTest, NumbersGrantsFromOneAndNeverAgain) {
  Ledger ledger;
  EXPECT_EQ(ledger.Add(Entry("a", 1, "p")).info.grant(), 1u);
  EXPECT_EQ(ledger.Add(Entry("a", 1, "p")).info.grant(), 2u);
  ledger.Remove(2);
  EXPECT_EQ(ledger.Add(Entry("a", 1, "p")).info.grant(), 3u);
  EXPECT_EQ(ledger.size(), 2u);
  EXPECT_EQ(ledger.total(), 3u);
}

TEST(LedgerTest, FindsWhatIsThere) {
  Ledger ledger;
  ledger.Add(Entry("a", 1, "p"));
  EXPECT_EQ(ledger.Find(1)->info.program(), "p");
  EXPECT_EQ(ledger.Find(0), nullptr);
  EXPECT_EQ(ledger.Find(2), nullptr);
  EXPECT_EQ(ledger.Remove(1).info.program(), "p");
  EXPECT_EQ(ledger.Find(1), nullptr);
}

TEST(LedgerTest, CountsByRuleAndUserAndByProgram) {
  Ledger ledger;
  ledger.Add(Entry("a", 1, "p"));
  ledger.Add(Entry("a", 1, "q"));
  ledger.Add(Entry("a", 2, "p"));
  ledger.Add(Entry("b", 1, "p"));
  EXPECT_EQ(ledger.InUse("a", 1), 2u);
  EXPECT_EQ(ledger.InUse("a", 2), 1u);
  EXPECT_EQ(ledger.InUse("b", 1), 1u);
  EXPECT_EQ(ledger.InUse("b", 2), 0u);
  EXPECT_EQ(ledger.OfProgram("p"), 3u);
  EXPECT_EQ(ledger.OfProgram("q"), 1u);
  ledger.Remove(1);
  EXPECT_EQ(ledger.InUse("a", 1), 1u);
  EXPECT_EQ(ledger.OfProgram("p"), 2u);
  ledger.Remove(2);
  EXPECT_EQ(ledger.InUse("a", 1), 0u);
  EXPECT_EQ(ledger.OfProgram("q"), 0u);
}

// The account goes by what was entered; a claim changes other fields only.
TEST(LedgerTest, CountsBackWhatItCounted) {
  Ledger ledger;
  Grant& grant = ledger.Add(Entry("a", 1, "p"));
  grant.info.set_claimed(true);
  ledger.Remove(1);
  EXPECT_EQ(ledger.InUse("a", 1), 0u);
}

TEST(LedgerTest, WhatHasEndedCountsUntilItIsReturned) {
  Ledger ledger;
  ledger.Add(Entry("a", 1, "p"));
  ledger.Add(Entry("a", 1, "p"));
  EXPECT_EQ(ledger.Retire(1, v1::REASON_REVOKED).info.ended(),
            v1::REASON_UNSPECIFIED);
  EXPECT_EQ(ledger.Find(1), nullptr);
  EXPECT_EQ(ledger.InUse("a", 1), 2u);
  EXPECT_EQ(ledger.RetiredOf("a", 1), 1u);
  EXPECT_EQ(ledger.RetiredOf("a", 2), 0u);
  // As a program's grant it lives no more.
  EXPECT_EQ(ledger.OfProgram("p"), 1u);
  EXPECT_EQ(ledger.size(), 1u);
  EXPECT_EQ(ledger.retired(), 1u);
  ASSERT_NE(ledger.FindRetired(1), nullptr);
  EXPECT_EQ(ledger.FindRetired(1)->ended(), v1::REASON_REVOKED);
  EXPECT_EQ(ledger.FindRetired(2), nullptr);
  ledger.SetHeld(1, "map 3");
  ledger.SetHeld(2, "nothing of it has ended");
  EXPECT_EQ(ledger.Return(1).held(), "map 3");
  EXPECT_EQ(ledger.InUse("a", 1), 1u);
  EXPECT_EQ(ledger.RetiredOf("a", 1), 0u);
  EXPECT_EQ(ledger.FindRetired(1), nullptr);
}

TEST(LedgerTest, WhatEndedWithAGrantCountsForItself) {
  Ledger ledger;
  const v1::GrantInfo holder = ledger.Add(Entry("a", 1, "p")).info;
  ledger.Remove(1);
  EXPECT_EQ(ledger.AddRetired(holder, {}), 2u);
  EXPECT_EQ(ledger.InUse("a", 1), 1u);
  EXPECT_EQ(ledger.RetiredOf("a", 1), 1u);
  // It never was a grant.
  EXPECT_EQ(ledger.total(), 1u);
  EXPECT_EQ(ledger.Add(Entry("a", 1, "p")).info.grant(), 3u);
  ledger.Return(2);
  EXPECT_EQ(ledger.InUse("a", 1), 1u);
}

std::vector<uint64_t> IdsBehind(const Ledger& ledger, uint64_t after,
                                size_t count) {
  std::vector<uint64_t> ids;
  if (count == 0) return ids;
  ledger.ForEach(after, [&](const v1::GrantInfo& grant) {
    ids.push_back(grant.grant());
    return ids.size() < count;
  });
  return ids;
}

TEST(LedgerTest, PagesById) {
  Ledger ledger;
  for (int i = 0; i < 6; ++i) ledger.Add(Entry("a", 1, "p"));
  ledger.Remove(3);
  EXPECT_THAT(IdsBehind(ledger, 0, 2), ElementsAre(1, 2));
  // The one to go on behind may be gone by then.
  EXPECT_THAT(IdsBehind(ledger, 3, 2), ElementsAre(4, 5));
  EXPECT_THAT(IdsBehind(ledger, 5, 2), ElementsAre(6));
  EXPECT_THAT(IdsBehind(ledger, 6, 2), IsEmpty());
  EXPECT_THAT(IdsBehind(ledger, UINT64_MAX, 2), IsEmpty());
}

TEST(LedgerTest, PagesThroughWhatLivesAndWhatHasEnded) {
  Ledger ledger;
  for (int i = 0; i < 6; ++i) ledger.Add(Entry("a", 1, "p"));
  for (const uint64_t id : {1, 3, 4, 6}) ledger.Retire(id, v1::REASON_RELEASED);
  EXPECT_THAT(IdsBehind(ledger, 0, 9), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(IdsBehind(ledger, 3, 2), ElementsAre(4, 5));
  EXPECT_THAT(ledger.Select([](const Grant&) { return true; }),
              ElementsAre(2, 5));
}

TEST(LedgerTest, SelectsTheIdsThatMatch) {
  Ledger ledger;
  for (const uid_t uid : {1, 2, 1}) ledger.Add(Entry("a", uid, "p"));
  EXPECT_THAT(
      ledger.Select([](const Grant& grant) { return grant.info.uid() == 1; }),
      ElementsAre(1, 3));
}

}  // namespace
}  // namespace bpfgrant::broker

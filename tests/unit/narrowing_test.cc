// What rules leave of parameters: mistakes in a policy, and what is within.

#include "policy/narrowing.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policy/policy.h"
#include "proto/refusal/refusal.h"
#include "tests/unit/compile_text.h"

namespace bpfgrant::policy {
namespace {

using ::testing::HasSubstr;

std::string Rule(const std::string& narrowing,
                 const std::string& effect = "ALLOW quota { grants: 1 }") {
  return "rule { name: \"r\" everyone: true program: \"*\"\n  effect: " +
         effect + "\n  parameter { " + narrowing + " } }";
}

std::string Complaint(const std::string& text) {
  const auto rules = CompileOne(text);
  EXPECT_EQ(ReasonOf(rules.status()), v1::REASON_FILE_INVALID) << text;
  return std::string(rules.status().message());
}

TEST(NarrowingTest, MistakesAreToldWithTheirPlace) {
  EXPECT_THAT(Complaint(Rule("name: \"A\"")), HasSubstr(":3:3: rule 'r'"));
  EXPECT_THAT(Complaint(Rule("name: \"a\" min: 2 max: 1")),
              HasSubstr("leaves nothing of parameter 'a'"));
  for (const char* prefix : {"10.0.0.0", "10.0.0/8", "10.0.0.0/33", "::1/129",
                             "10.0.0.0/x", "localhost/8"}) {
    EXPECT_THAT(
        Complaint(Rule("name: \"a\" prefix: \"" + std::string(prefix) + "\"")),
        HasSubstr("is no prefix"));
  }
  EXPECT_THAT(Complaint(Rule("name: \"a\"", "DENY")), HasSubstr("is DENY"));
  EXPECT_THAT(Complaint(Rule("name: \"a\" } parameter { name: \"a\"")),
              HasSubstr("twice"));
}

absl::Status Check(const std::string& narrowing, v1::ParameterValue value) {
  const auto rules = CompileOne(Rule("name: \"a\" " + narrowing));
  EXPECT_TRUE(rules.ok()) << rules.status();
  value.set_name("a");
  return CheckNarrowing(rules->at(0), {}, {value});
}

v1::ParameterValue Prefix(const std::string& address, uint32_t length) {
  v1::ParameterValue value;
  value.mutable_prefix()->set_address(address);
  value.mutable_prefix()->set_length(length);
  return value;
}

TEST(NarrowingTest, BoundsAreWithin) {
  v1::ParameterValue value;
  value.set_integer(-1);
  EXPECT_TRUE(Check("min: -1", value).ok());
  EXPECT_FALSE(Check("min: 0", value).ok());
  EXPECT_TRUE(Check("max: -1", value).ok());
  EXPECT_TRUE(Check("", value).ok());
  const std::string ten("\x0a\x80\0\0", 4);
  EXPECT_TRUE(Check("prefix: \"10.128.0.0/9\"", Prefix(ten, 9)).ok());
  EXPECT_TRUE(Check("prefix: \"0.0.0.0/0\"", Prefix(ten, 9)).ok());
  // A shorter one names more.
  EXPECT_FALSE(Check("prefix: \"10.128.0.0/10\"", Prefix(ten, 9)).ok());
  EXPECT_FALSE(Check("prefix: \"10.0.0.0/9\"", Prefix(ten, 9)).ok());
  EXPECT_FALSE(Check("prefix: \"::/0\"", Prefix(ten, 9)).ok());
}

// Nothing, where it may be left out, could be more than the rule leaves.
TEST(NarrowingTest, WhatIsNarrowedHasToBeGiven) {
  const auto rules = CompileOne(Rule("name: \"a\" max: 9"));
  ASSERT_TRUE(rules.ok()) << rules.status();
  Parameters declared;
  declared.Add()->set_name("b");
  EXPECT_TRUE(CheckNarrowing(rules->at(0), declared, {}).ok());
  declared.Add()->set_name("a");
  EXPECT_EQ(ReasonOf(CheckNarrowing(rules->at(0), declared, {})),
            v1::REASON_PARAMETER_MISSING);
  v1::ParameterValue value;
  value.set_name("a");
  value.set_integer(9);
  EXPECT_TRUE(CheckNarrowing(rules->at(0), declared, {value}).ok());
}

TEST(NarrowingTest, BoundsOfAnotherTypeLeaveNothing) {
  v1::ParameterValue value;
  value.set_choice("fast");
  EXPECT_TRUE(Check("choice: \"fast\"", value).ok());
  for (const char* other : {"min: 0", "prefix: \"::/0\"", "max_length: 9"}) {
    EXPECT_EQ(ReasonOf(Check(other, value)), v1::REASON_PARAMETER_NARROWED);
  }
  value.set_fd(0);
  EXPECT_FALSE(Check("max: 9", value).ok());
}

}  // namespace
}  // namespace bpfgrant::policy

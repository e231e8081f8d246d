#include "proto/text/text_file.h"

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "bpfgrant/v1/policy.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/struct.pb.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string ErrorOf(std::string_view text) {
  v1::Policy policy;
  TextFile file("p");
  const absl::Status status = file.Parse(text, policy);
  if (status.ok()) return "";
  EXPECT_EQ(ReasonOf(status), v1::REASON_FILE_INVALID);
  EXPECT_EQ(policy.rule_size(), 0) << "half of it was kept";
  return std::string(status.message());
}

std::string Show(Place place) {
  return std::to_string(place.line) + ":" + std::to_string(place.column);
}

TEST(TextFileTest, ParsesWhatIsRight) {
  v1::Policy policy;
  TextFile file("p");
  ASSERT_TRUE(file.Parse("# comment: \"grüezi\"\n"
                         "rule { name: 'a' \"b\" effect: DENY }\n",
                         policy)
                  .ok());
  ASSERT_EQ(policy.rule_size(), 1);
  EXPECT_EQ(policy.rule(0).name(), "ab");
  EXPECT_EQ(policy.rule(0).effect(), v1::Rule::DENY);
}

TEST(TextFileTest, AnEmptyFileIsAnEmptyMessage) {
  EXPECT_EQ(ErrorOf(""), "");
  EXPECT_EQ(ErrorOf("\n# nothing\n"), "");
}

TEST(TextFileTest, ClearsWhatTheMessageHeld) {
  v1::Policy policy;
  policy.add_rule()->set_name("old");
  ASSERT_TRUE(TextFile("p").Parse("", policy).ok());
  EXPECT_EQ(policy.rule_size(), 0);
}

struct BadText {
  std::string name;
  std::string text;
  std::string error;  // its beginning
};

const BadText kBadTexts[] = {
    {"Syntax", "rule {\n  name \"a\"\n}", "p:2:8: "},
    {"OpenEnd", "rule {\n  name: \"a\"\n", "p:3:1: "},
    {"UnknownField", "rule {\n  nam: \"a\"\n}",
     "p:2:3: Message type \"bpfgrant.v1.Rule\" has no field named "
     "\"nam\""},
    {"UnknownFieldAtTheTop", "rule {}\nrules {}", "p:2:1: "},
    {"WrongType", "rule {\n  everyone: 7\n}", "p:2:13: "},
    {"UnknownEnumName", "rule { effect: MAYBE\n }", "p:1:16: "},
    {"UnknownBool", "rule { everyone: yes\n }", "p:1:18: "},
    {"UnknownEnumNumber", "rule {\n  effect: 9 }",
     "p:2:3: field 'effect' knows no value 9"},
    {"NegativeQuota", "rule { quota { grants: -1 } }", "p:1:24: "},
    {"QuotaTooLarge", "rule { quota { grants: 4294967296 } }", "p:1:24: "},
    {"Twice", "rule {\n name: 'a'\n name: 'b' }", "p:3:2: "},
    {"TwiceAMessage", "rule {\n quota { grants: 1 }\n quota { grants: 2 } }",
     "p:3:2: "},
    // The parser takes a field with the default's value for absent.
    {"TwiceAfterTheDefault", "rule {\n trusted: false\n trusted: true }",
     "p:3:2: field 'trusted' given twice"},
    {"TwiceWithinAQuota", "rule {}\nrule { quota { grants: 0, grants: 1 } }",
     "p:2:27: field 'grants' given twice"},
    {"TheFirstOfMany",
     "rule {\n trusted: false trusted: true\n effect: 9 }\n"
     "rule { everyone: false everyone: true }",
     "p:2:17: field 'trusted' given twice"},
    {"Nul", std::string("# a\n# b\0c\n", 10), "p:2:4: a NUL byte"},
    {"NulFirst", std::string("\0", 1), "p:1:1: a NUL byte"},
    {"NotUtf8", "# \xc3\xa4\n#\t\xff", "p:2:9: not UTF-8"},
    {"NotUtf8BeforeNul", std::string("# \xff\0", 4), "p:1:3: not UTF-8"},
    {"NulBeforeNotUtf8", std::string("# \0\xff", 4), "p:1:3: a NUL byte"},
    {"Overlong", "# \xc0\xaf", "p:1:3: not UTF-8"},
    {"OverlongOfThree", "# \xe0\x80\xaf", "p:1:3: not UTF-8"},
    {"Surrogate", "# \xed\xa0\x80", "p:1:3: not UTF-8"},
    {"BeyondUnicode", "# \xf4\x90\x80\x80", "p:1:3: not UTF-8"},
    {"CutOff", "# \xe2\x82", "p:1:3: not UTF-8"},
    {"EscapedNul", "rule {\n name: 'a\\000b' }",
     "p:2:2: field 'name' has a control character"},
    {"EscapedNewline", "rule { user: ['a',\n'\\n'] }",
     "p:2:1: field 'user' has a control character"},
    {"EscapedNotUtf8", "rule { name: '\\xff' }",
     "p:1:8: field 'name' is not UTF-8"},
};

TEST(TextFileTest, RefusesBadTextsAtTheirPlaces) {
  for (const BadText& bad : kBadTexts) {
    SCOPED_TRACE(bad.name);
    EXPECT_THAT(ErrorOf(bad.text), StartsWith(bad.error));
  }
}

TEST(TextFileTest, TakesAllOfUtf8) {
  EXPECT_EQ(ErrorOf("# \xc2\x80 \xe0\xa0\x80 \xed\x9f\xbf \xee\x80\x80 "
                    "\xf0\x90\x80\x80 \xf4\x8f\xbf\xbf"),
            "");
}

TEST(TextFileTest, TellsTheFirstErrorOnly) {
  const std::string error = ErrorOf("rule { nam: 'a' }\nrule { usr: 'b' }\n");
  EXPECT_THAT(error, HasSubstr("p:1:"));
  EXPECT_THAT(error, Not(HasSubstr("p:2:")));
  EXPECT_THAT(error, Not(HasSubstr("usr")));
}

TEST(TextFileTest, LimitsTheSize) {
  v1::Policy policy;
  std::string text = "#" + std::string(kMaxTextFileBytes - 1, 'a');
  EXPECT_TRUE(TextFile("p").Parse(text, policy).ok());
  text += "a";
  const absl::Status status = TextFile("p").Parse(text, policy);
  EXPECT_EQ(ReasonOf(status), v1::REASON_TOO_LARGE);
  EXPECT_THAT(std::string(status.message()), StartsWith("p: "));
}

// Deep enough to overflow the stack of a parser that recurses without end.
TEST(TextFileTest, LimitsTheDepth) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) {
    text += "list_value{values{";
  }
  google::protobuf::Value value;
  const absl::Status status = TextFile("p").Parse(text, value);
  EXPECT_EQ(ReasonOf(status), v1::REASON_FILE_INVALID);
  EXPECT_THAT(std::string(status.message()), HasSubstr("recursion limit"));
}

class PlacesTest : public ::testing::Test {
 protected:
  void Parse(std::string_view text) {
    const absl::Status status = file_.Parse(text, policy_);
    ASSERT_TRUE(status.ok()) << status;
  }

  v1::Policy policy_;
  TextFile file_{"p"};
};

TEST_F(PlacesTest, OfFieldsAndElements) {
  Parse(
      "rule {\n"
      "  name: \"a\"  # name: \"b\"\n"
      "  user: \"x\" user: [\"y\",\n"
      "         \"z\" \"z\"], user: 'w';\n"
      "  quota <grants: 3>\n"
      "}\n"
      "\trule: {effect: DENY; user: []}\n");
  EXPECT_EQ(Show(file_.Where("rule", 0)), "1:1");
  EXPECT_EQ(Show(file_.Where("rule", 1)), "7:9");
  EXPECT_EQ(Show(file_.Where("rule", 0, "name")), "2:3");
  EXPECT_EQ(Show(file_.Where("rule", 0, "user", 0)), "3:3");
  EXPECT_EQ(Show(file_.Where("rule", 0, "user", 1)), "3:20");
  EXPECT_EQ(Show(file_.Where("rule", 0, "user", 2)), "4:10");
  EXPECT_EQ(Show(file_.Where("rule", 0, "user", 3)), "4:20");
  EXPECT_EQ(Show(file_.Where("rule", 0, "quota")), "5:3");
  EXPECT_EQ(Show(file_.Where("rule", 1, "effect")), "7:16");
}

TEST_F(PlacesTest, OfListsOfMessages) {
  Parse("rule: [{ name: 'a' },\n { name: 'b' }]\nrule { name: 'c' }");
  ASSERT_EQ(policy_.rule_size(), 3);
  EXPECT_EQ(Show(file_.Where("rule", 1)), "2:2");
  EXPECT_EQ(Show(file_.Where("rule", 1, "name")), "2:4");
  EXPECT_EQ(Show(file_.Where("rule", 2, "name")), "3:8");
}

TEST_F(PlacesTest, OfWhatIsAbsent) {
  Parse("\n  rule { user: 'a' }");
  EXPECT_EQ(Show(file_.Where("rule", 1)), "0:0");
  EXPECT_EQ(Show(file_.Where("nothing")), "0:0");
  EXPECT_EQ(Show(file_.Where("rule", 0, "effect")), "2:3");
  EXPECT_EQ(Show(file_.Where("rule", 0, "user", 1)), "2:3");
  EXPECT_EQ(Show(file_.Where("rule", 5, "user", 0)), "0:0");
}

TEST_F(PlacesTest, OfFieldsThatAreNotRepeated) {
  v1::Manifest manifest;
  ASSERT_TRUE(
      file_.Parse("name: 'a'\nprogram {\n  type: SOCKET_FILTER }", manifest)
          .ok());
  EXPECT_EQ(Show(file_.Where("name")), "1:1");
  EXPECT_EQ(Show(file_.Where("program", -1, "type")), "3:3");
}

TEST_F(PlacesTest, AreGoneAfterAnError) {
  Parse("rule {}");
  EXPECT_FALSE(file_.Parse("rule {", policy_).ok());
  EXPECT_EQ(Show(file_.Where("rule", 0)), "0:0");
}

TEST_F(PlacesTest, MoveWithTheFile) {
  Parse("rule {}");
  const TextFile moved = std::move(file_);
  EXPECT_EQ(Show(moved.Where("rule", 0)), "1:1");
  EXPECT_EQ(moved.name(), "p");
}

TEST(ComplainTest, SaysAsMuchOfThePlaceAsThereIs) {
  const TextFile file("dir/x.policy");
  const auto complaint = [&](Place place) {
    return std::string(file.Complain(place, "wrong").message());
  };
  EXPECT_THAT(complaint({3, 4}), StartsWith("dir/x.policy:3:4: wrong. "));
  EXPECT_THAT(complaint({3, 0}), StartsWith("dir/x.policy:3: wrong. "));
  EXPECT_THAT(complaint({}), StartsWith("dir/x.policy: wrong. "));
  EXPECT_EQ(ReasonOf(file.Complain({}, "wrong")), v1::REASON_FILE_INVALID);
}

}  // namespace
}  // namespace bpfgrant

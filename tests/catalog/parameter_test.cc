// Parameters from the manifest's text to the loaded constants.

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/instance.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::HasSubstr;

constexpr char kLevel[] =
    "parameter { name: \"level\" integer { min: -1 max: 100 }\n"
    "  constant: \"level\" default { integer: 7 } }\n";

class ParameterTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_BPF(); }

  std::shared_ptr<const Program> Admit(
      const std::string& parameters,
      const std::string& variant = "parameter_good") {
    const std::string object = ObjectBytes(variant);
    folder_.Write("sample.bpf.o", object);
    folder_.Write("sample.manifest",
                  SampleManifest("sample", object) + parameters);
    return AdmitFrom(folder_.path(), "sample");
  }
  void ExpectRefused(const std::string& parameters, const std::string& what,
                     v1::Reason reason = v1::REASON_FILE_INVALID) {
    const auto program = Admit(parameters);
    EXPECT_EQ(ReasonFor(*program), reason) << RefusalFor(*program);
    EXPECT_THAT(RefusalFor(*program), HasSubstr(what));
  }
  static std::string Level(const std::string& from, const std::string& to) {
    return absl::StrReplaceAll(kLevel, {{from, to}});
  }
  // What the program answers with its constant set to that.
  int Answer(const Program& program,
             absl::Span<const v1::ParameterValue> values,
             const Mitigations& mitigations = {}) {
    const UniqueFd gate(MakeGate(1, 2));
    auto instance =
        LoadInstance(program, {gate.get()}, 1, 2, mitigations, {}, values);
    EXPECT_TRUE(instance.ok()) << instance.status();
    return instance.ok() ? RunFilter(instance->program.get()) : -1;
  }
  static v1::ParameterValue Value(int64_t number) {
    v1::ParameterValue value;
    value.set_name("level");
    value.set_integer(number);
    return value;
  }
  TemporaryFolder folder_;
};

TEST_F(ParameterTest, TheConstantIsTheDefaultOrWhatIsGiven) {
  const auto program = Admit(kLevel);
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_EQ(program->entry.description().parameter(0).name(), "level");
  EXPECT_THAT(
      program->entry.description().header(),
      HasSubstr("#define SAMPLE_PARAMETER_LEVEL \"level\" /* -1 to 100"));
  EXPECT_EQ(Answer(*program, {}), 7);
  const v1::ParameterValue nine = Value(9);
  EXPECT_EQ(Answer(*program, {&nine, 1}), 9);
}

// Whoever took over the broker.
TEST_F(ParameterTest, TheLoaderLooksOnceMore) {
  const auto program = Admit(kLevel);
  const UniqueFd gate(MakeGate(1, 2));
  const auto load = [&](v1::ParameterValue value,
                        const Mitigations& mitigations = {}) {
    return ReasonOf(
        LoadInstance(*program, {gate.get()}, 1, 2, mitigations, {}, {&value, 1})
            .status());
  };
  EXPECT_EQ(load(Value(101)), v1::REASON_PARAMETER_RANGE);
  v1::ParameterValue other = Value(1);
  other.set_name("bpfgrant_gate_slot");
  EXPECT_EQ(load(other), v1::REASON_PARAMETER_UNKNOWN);
  Mitigations weakened;
  weakened.parameter_ranges = false;
  EXPECT_EQ(load(Value(101), weakened), v1::REASON_UNSPECIFIED);
  // There is no room for it even so.
  EXPECT_EQ(load(Value(int64_t{1} << 40), weakened),
            v1::REASON_PARAMETER_RANGE);
}

TEST_F(ParameterTest, OneWithoutADefaultIsLoadedWhenItIsChosen) {
  const auto program = Admit(Level("default { integer: 7 }", ""));
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_EQ(program->entry.pool_target(), 0u);
}

TEST_F(ParameterTest, ItHasToBeSafeWithAnyValue) {
  // Writes the gate if its constant is 99.
  const auto program = Admit(kLevel, "parameter_bad_value");
  EXPECT_EQ(ReasonFor(*program), v1::REASON_VERIFIER) << RefusalFor(*program);
}

TEST_F(ParameterTest, MistakesInTheManifest) {
  ExpectRefused(Level("\"level\" integer", "\"Level\" integer"), "name");
  ExpectRefused(absl::StrCat(kLevel, kLevel), "'level' is named twice");
  ExpectRefused(Level("max: 100", "max: -2"), "between min and max");
  ExpectRefused(Level("integer: 7", "integer: 101"),
                "its default is not -1 to 100");
  ExpectRefused(Level("integer: 7", "choice: \"x\""), "its default");
  ExpectRefused(Level("constant: \"level\"", ""), "where its value goes");
  ExpectRefused(Level("integer { min: -1 max: 100 }", ""), "a parameter is");
  ExpectRefused(Level("default { integer: 7 }", "optional: true"),
                "needs a default");
  ExpectRefused(Level("constant: \"level\"", "entry { map: \"nothing\" }"),
                "no map 'nothing'");
  ExpectRefused(Level("constant: \"level\"", "entry { map: \"orders\" }"),
                "HANDLE_KIND_ARRAY");
  ExpectRefused(Level("constant: \"level\"", "entry { map: \"counters\" }"),
                "without a handle");
  std::string many;
  for (int i = 0; i <= kMaxParameters; ++i) {
    many += Level("name: \"level\"", absl::StrCat("name: \"level", i, "\""));
  }
  ExpectRefused(many, "at most 16");
}

TEST_F(ParameterTest, MistakesInTheObject) {
  const auto mismatch = [this](const std::string& parameters) {
    ExpectRefused(parameters, "room", v1::REASON_OBJECT_MISMATCH);
  };
  mismatch(Level("constant: \"level\"", "constant: \"other\""));
  // Not a parameter's section.
  mismatch(Level("constant: \"level\"", "constant: \"bpfgrant_gate_slot\""));
  mismatch(Level("max: 100", "max: 4294967296"));
  mismatch(Level("max: 100", "max: 2147483648"));
  mismatch(Level("constant: \"level\"",
                 "entry { map: \"config\" index: 4 size: 4 }"));
  mismatch(Level("constant: \"level\"",
                 "entry { map: \"config\" offset: 5 size: 4 }"));
  mismatch(Level("constant: \"level\"",
                 "entry { map: \"config\" offset: 4294967295 size: 4 }"));
  mismatch(Level("constant: \"level\"", "entry { map: \"config\" size: 3 }"));
  EXPECT_TRUE(
      Admit(Level("constant: \"level\"",
                  "entry { map: \"config\" index: 3 offset: 4 size: 4 }"))
          ->available());
}

}  // namespace
}  // namespace bpfgrant::daemon

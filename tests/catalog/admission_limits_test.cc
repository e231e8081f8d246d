// The administrator's limits: what they refuse, by which name and place, and
// how files override what is built in.

#include "daemon/loader/admission_limits.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/loader/admission_files.h"
#include "daemon/loader/catalog.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::HasSubstr;

class Names : public policy::NameResolver {
 public:
  absl::StatusOr<uid_t> User(std::string_view name) const override {
    if (name == "alice") return 1000;
    return absl::NotFoundError("there is no such user");
  }
  absl::StatusOr<gid_t> Group(std::string_view name) const override {
    if (name == "operators") return 50;
    return absl::NotFoundError("there is no such group");
  }
};

AdmissionLimits With(const std::string& text) {
  AdmissionLimits limits;
  const absl::Status status = limits.Override("a.conf", text);
  EXPECT_TRUE(status.ok()) << status;
  return limits;
}

TEST(AdmissionLimitsTest, BuiltInAreTight) {
  const AdmissionLimits limits;
  EXPECT_TRUE(limits.Allows("helper", "map_lookup_elem"));
  // Writes user memory, overrides returns, sends signals, calls bpf(2) again.
  for (const char* helper :
       {"probe_write_user", "copy_to_user", "override_return", "send_signal",
        "send_signal_thread", "sys_bpf", "probe_read_user", "skb_store_bytes",
        "tail_call", "trace_printk"}) {
    EXPECT_FALSE(limits.Allows("helper", helper)) << helper;
  }
  EXPECT_FALSE(limits.Allows("map_type", "PROG_ARRAY"));
  EXPECT_FALSE(limits.Allows("unrevocable", "sample"));
  EXPECT_THAT(limits.CheckAll("helper", {"map_lookup_elem", "send_signal"}),
              Refused(v1::REASON_ADMISSION_LIMIT,
                      "its helper 'send_signal' is not allowed (the limit "
                      "'helper', built in)"));
}

TEST(AdmissionLimitsTest, AListReplacesAListAndDefaultStandsForIt) {
  const AdmissionLimits fewer = With("helper: \"loop\"");
  EXPECT_TRUE(fewer.Allows("helper", "loop"));
  EXPECT_FALSE(fewer.Allows("helper", "map_lookup_elem"));
  AdmissionLimits more = With("helper: [\"default\", \"send_signal\"]");
  EXPECT_TRUE(more.Allows("helper", "map_lookup_elem"));
  EXPECT_TRUE(more.Allows("helper", "send_signal"));
  // Of the file before, not of what is built in.
  ASSERT_TRUE(
      more.Override("b.conf", "helper: [\"default\", \"trace_printk\"]").ok());
  EXPECT_TRUE(more.Allows("helper", "send_signal"));
  EXPECT_TRUE(With("helper: \"*\"").Allows("helper", "send_signal"));
  EXPECT_FALSE(With("helper: \"none\"").Allows("helper", "loop"));
}

TEST(AdmissionLimitsTest, FilesOverrideFieldByField) {
  AdmissionLimits limits = With("program { maps: 2 entries: 7 }");
  ASSERT_TRUE(limits.Override("b.conf", "\nprogram { entries: 8 }").ok());
  Amounts amounts;
  amounts.maps = 3;
  EXPECT_THAT(limits.CheckAmounts("program", amounts),
              Refused(v1::REASON_ADMISSION_LIMIT,
                      "it has 3 maps, where 2 are the most (the limit "
                      "'program.maps', a.conf:1:11)"));
  amounts = {};
  amounts.entries = 9;
  EXPECT_THAT(limits.CheckAmounts("program", amounts),
              Refused(v1::REASON_ADMISSION_LIMIT, "b.conf:2:11"));
  amounts = {};
  amounts.instructions = 65537;
  EXPECT_THAT(
      limits.CheckAmounts("program", amounts),
      Refused(v1::REASON_ADMISSION_LIMIT, "'program.instructions', built in"));
}

TEST(AdmissionLimitsTest, WhatIsWrongWithAFileIsToldWithItsPlace) {
  const auto complaint = [](const std::string& text) {
    AdmissionLimits limits;
    const absl::Status status = limits.Override("a.conf", text);
    EXPECT_EQ(ReasonOf(status), v1::REASON_FILE_INVALID) << text;
    // Nothing of it counts.
    EXPECT_TRUE(limits.Allows("program_type", "TRACING")) << text;
    return std::string(status.message());
  };
  EXPECT_THAT(complaint("program_type: \"TRACING\"\nhelper: \"send_signals\""),
              HasSubstr("a.conf:2:1: there is no helper 'send_signals'"));
  EXPECT_THAT(complaint("program_type: [\"SOCKET_FILTER\", \"XDP\"]"),
              HasSubstr("no programs of type 'XDP'"));
  EXPECT_THAT(complaint("map_type: \"HASHES\""), HasSubstr("'HASHES'"));
  EXPECT_THAT(complaint("kfunc: \"a b\""), HasSubstr("'a b'"));
  EXPECT_THAT(complaint("unrevocable: \"/etc/passwd\""), HasSubstr("passwd"));
  EXPECT_THAT(complaint("helper: [\"loop\", \"none\"]"),
              HasSubstr("a.conf:1:18: \"none\" stands alone"));
  EXPECT_THAT(complaint("programm { }"), HasSubstr("programm"));
  EXPECT_THAT(complaint("program { maps: -1 }"), HasSubstr("a.conf:1:17"));
}

CompiledRule Trusting(uint32_t uid, uint32_t gid) {
  CompiledRule rule;
  rule.set_name("r");
  rule.set_file("p");
  rule.set_line(3);
  rule.set_trusted(true);
  if (uid != 0) rule.add_uid(uid);
  if (gid != 0) rule.add_gid(gid);
  return rule;
}

TEST(AdmissionLimitsTest, WhomRulesMayTrust) {
  const AdmissionLimits limits =
      With("trusted_user: [\"alice\", \"7\"]\ntrusted_group: \"operators\"");
  const auto check = [&](const CompiledRule& rule) {
    return limits.CheckTrust({&rule, 1}, Names());
  };
  EXPECT_TRUE(check(Trusting(1000, 0)).ok());
  EXPECT_TRUE(check(Trusting(7, 50)).ok());
  EXPECT_THAT(check(Trusting(8, 0)),
              Refused(v1::REASON_ADMISSION_LIMIT,
                      "p:3: rule 'r' trusts others than may be trusted (the "
                      "limit 'trusted_user', a.conf:1:16)"));
  EXPECT_THAT(check(Trusting(0, 51)),
              Refused(v1::REASON_ADMISSION_LIMIT, "a.conf:2:1"));
  // Of everyone.
  EXPECT_THAT(check(Trusting(0, 0)),
              Refused(v1::REASON_ADMISSION_LIMIT, "'trusted_user'"));
  CompiledRule untrusting = Trusting(8, 0);
  untrusting.set_trusted(false);
  EXPECT_TRUE(check(untrusting).ok());
  const AdmissionLimits unknown = With("trusted_user: \"bob\"");
  const CompiledRule rule = Trusting(8, 0);
  EXPECT_THAT(unknown.CheckTrust({&rule, 1}, Names()),
              Refused(v1::REASON_FILE_INVALID, "a.conf:1:1"));
}

TEST(AdmissionLimitsTest, AllAreDescribed) {
  const auto described = With("helper: \"loop\"").Describe();
  EXPECT_EQ(described.size(), 17u);
  std::map<std::string, std::string> values;
  for (const v1::LimitInForce& limit : described) {
    EXPECT_EQ(limit.place(),
              limit.name() == "helper" ? "a.conf:1:1" : "built in");
    values[limit.name()] = limit.value();
  }
  EXPECT_EQ(values["helper"], "loop");
  EXPECT_EQ(values["unrevocable"], "none");
  EXPECT_EQ(values["program.maps"], "64");
}

class LimitedAdmissionTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_BPF(); }

  std::shared_ptr<const Program> Admit(const std::string& variant,
                                       const std::string& limits,
                                       const Mitigations& mitigations = {}) {
    folder_.WriteProgram("sample", variant);
    auto admission = Admission::Create({}, mitigations);
    EXPECT_TRUE(admission.ok()) << admission.status();
    admission->SetLimits(With(limits));
    return AdmitFrom(folder_.path(), "sample", *admission);
  }
  void ExpectRefused(const std::string& variant, const std::string& limits,
                     const std::string& what) {
    const auto program = Admit(variant, limits);
    EXPECT_EQ(ReasonFor(*program), v1::REASON_ADMISSION_LIMIT)
        << RefusalFor(*program);
    EXPECT_THAT(RefusalFor(*program), HasSubstr(what));
    EXPECT_THAT(RefusalFor(*program), HasSubstr("sample.manifest:"));
  }
  TemporaryFolder folder_;
};

TEST_F(LimitedAdmissionTest, EachLimitBinds) {
  ExpectRefused("good", "program_type: \"TRACING\"", "'SOCKET_FILTER'");
  ExpectRefused("good", "map_type: \"ARRAY\"", "'HASH'");
  ExpectRefused("good", "helper: \"loop\"", "'map_lookup_elem'");
  ExpectRefused("good", "program { instructions: 3 }",
                "'program.instructions', a.conf:1:11");
  ExpectRefused("good", "program { object_bytes: 3 }", "object_bytes");
  ExpectRefused("good", "program { map_bytes: 3 }", "map_bytes");
  ExpectRefused("good", "program { maps: 3 }", "maps");
  ExpectRefused("good", "program { entries: 1 }", "entries");
  ExpectRefused("good", "total { maps: 3 }", "with it all programs have");
  EXPECT_TRUE(Admit("good", "")->available());
}

TEST_F(LimitedAdmissionTest, WhatCallsOfTheKernelAreFound) {
  // In the program, in a function, in a program that it calls as a function,
  // as a function of the kernel's and as one that is called by its number.
  ExpectRefused("calls_helper", "", "its helper 'trace_printk'");
  ExpectRefused("calls_in_function", "", "its helper 'trace_printk'");
  ExpectRefused("calls_in_program", "", "its helper 'trace_printk'");
  ExpectRefused("calls_kfunc", "", "its kfunc 'bpf_never_allowed'");
  ExpectRefused("calls_number", "", "its kfunc 'number 7'");
}

TEST_F(LimitedAdmissionTest, TakesItWithoutTheMitigation) {
  Mitigations weakened;
  weakened.admission_limits = false;
  EXPECT_TRUE(Admit("calls_helper", "", weakened)->available());
}

TEST_F(LimitedAdmissionTest, TotalsAreCountedOverTheCatalog) {
  folder_.WriteProgram("first");
  folder_.WriteProgram("second");
  auto admission = Admission::Create({}, {});
  ASSERT_TRUE(admission.ok());
  // One has four maps and those of its constants.
  for (int reading = 0; reading < 2; ++reading) {
    admission->SetLimits(With("total { maps: 11 }"));
    const auto catalog = Catalog::Read({{folder_.path()}}, *admission);
    ASSERT_TRUE(catalog.ok());
    EXPECT_TRUE(catalog->Find("first")->available())
        << RefusalFor(*catalog->Find("first"));
    EXPECT_THAT(RefusalFor(*catalog->Find("second")),
                HasSubstr("'total.maps', a.conf:1:9"));
  }
}

TEST_F(LimitedAdmissionTest, UnrevocableProgramsAreNamed) {
  const std::string object = ObjectBytes("no_gate");
  folder_.Write("sample.bpf.o", object);
  folder_.Write("sample.manifest",
                SampleManifest("sample", object, "on_revoke: DROP",
                               "on_revoke: NOTHING"));
  auto admission = Admission::Create({}, {});
  ASSERT_TRUE(admission.ok());
  auto program = AdmitFrom(folder_.path(), "sample", *admission);
  EXPECT_THAT(RefusalFor(*program),
              HasSubstr("its unrevocable 'sample' is not allowed"));
  admission->SetLimits(With("unrevocable: \"sample\""));
  program = AdmitFrom(folder_.path(), "sample", *admission);
  EXPECT_TRUE(program->available()) << RefusalFor(*program);
  EXPECT_THAT(program->entry.description().irrevocable(),
              HasSubstr("Nothing stops the program"));
  // One that a gate could stop does not get around it.
  const std::string gated = ObjectBytes("good");
  folder_.Write("sample.bpf.o", gated);
  folder_.Write(
      "sample.manifest",
      SampleManifest("sample", gated, "on_revoke: DROP", "on_revoke: NOTHING"));
  program = AdmitFrom(folder_.path(), "sample", *admission);
  EXPECT_EQ(ReasonFor(*program), v1::REASON_OBJECT_MISMATCH);
}

TEST(AdmissionFilesTest, LaterOnesOverrideAndMissingOnesAreNone) {
  const TemporaryFolder folder;
  const std::string first = folder.Write("a.conf", "program { maps: 2 }");
  const std::string second = folder.Write("b.conf", "program { maps: 3 }");
  const std::string missing = folder.path() + "/c.conf";
  const auto limits = ReadAdmissionLimits({{first, second, missing}}, {});
  ASSERT_TRUE(limits.ok()) << limits.status();
  Amounts amounts;
  amounts.maps = 4;
  EXPECT_THAT(limits->CheckAmounts("program", amounts),
              Refused(v1::REASON_ADMISSION_LIMIT, second + ":1:11"));
  folder.Write("b.conf", "program { maps: }");
  EXPECT_THAT(ReadAdmissionLimits({{first, second}}, {}).status(),
              Refused(v1::REASON_FILE_INVALID, second + ":1:"));
  EXPECT_EQ(ReasonOf(ReadAdmissionLimits({{"a.conf"}}, {}).status()),
            v1::REASON_INVALID_ARGUMENT);
}

TEST(AdmissionFilesTest, MustBeSafe) {
  const TemporaryFolder folder;
  const std::string file = folder.Write("a.conf", "");
  ASSERT_EQ(chmod(file.c_str(), 0666), 0);
  EXPECT_EQ(ReasonOf(ReadAdmissionLimits({{file}}, {}).status()),
            v1::REASON_FILE_UNSAFE);
  Mitigations weakened;
  weakened.file_safety = false;
  EXPECT_TRUE(ReadAdmissionLimits({{file}}, weakened).ok());
}

}  // namespace
}  // namespace bpfgrant::daemon

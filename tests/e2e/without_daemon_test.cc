// inspect, approve, verify and diff as a package's build and CI use them: as
// nobody, without a daemon, with output that is the same at every run and exit
// codes that can be relied on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "bpfgrant/v1/check.pb.h"
#include "bpfgrant/v1/inspection.pb.h"
#include "google/protobuf/util/json_util.h"
#include "tests/harness/private_folder.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using Words = std::vector<std::string>;

constexpr int kRefused = 1, kUsage = 2, kLate = 3, kBroken = 4;

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class WithoutDaemonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "privilege: CAP_SETUID";
    old_ = Catalog("old");
  }

  // With the filters that every kernel takes.
  std::filesystem::path Catalog(const std::string& name) {
    const auto folder = folder_ / name;
    std::filesystem::create_directory(folder);
    chmod(folder.c_str(), 0755);
    for (const char* file :
         {"packet_sampler.manifest", "packet_sampler.bpf.o",
          "reuseport_steer.manifest", "reuseport_steer.bpf.o"}) {
      std::filesystem::copy(absl::StrCat(CATALOG_FOLDER, "/", file), folder);
    }
    return folder;
  }
  std::string Write(const std::filesystem::path& path,
                    const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    chmod(path.c_str(), 0644);
    return path;
  }
  void Replace(const std::filesystem::path& path, const std::string& from,
               const std::string& to) {
    Write(path, absl::StrReplaceAll(ReadFile(path), {{from, to}}));
  }

  static Outcome Run(const Words& words) {
    return RunUnprivileged(BPFGRANTCTL_PATH, words);
  }
  // Root's files, without root's capabilities.
  static Outcome Root(const Words& words) {
    UnprivilegedOptions options;
    options.uid = 0;
    options.gid = 0;
    return RunUnprivileged(BPFGRANTCTL_PATH, words, options);
  }
  template <typename Reply>
  static Reply Parse(const Outcome& outcome) {
    Reply reply;
    const auto status =
        google::protobuf::util::JsonStringToMessage(outcome.output, &reply);
    EXPECT_TRUE(status.ok()) << outcome.Describe();
    return reply;
  }

  const PrivateFolder private_;
  const std::filesystem::path folder_ = private_.path();
  std::filesystem::path old_;
};

// Without what another compiler of the same source makes otherwise.
std::string Stable(const std::string& text) {
  std::string stable;
  for (const auto& [pattern, name] :
       std::vector<std::pair<const char*, const char*>>{
           {"[0-9a-f]{64}", "DIGEST"},
           {"[0-9]+ instructions", "N instructions"},
           {"(size: +)[0-9.]+ KiB", "$1N KiB"},
           {"(calls: +)[^\n]+", "$1FUNCTIONS"}}) {
    stable = std::regex_replace(stable.empty() ? text : stable,
                                std::regex(pattern), name);
  }
  return stable;
}

class GoldenTest : public WithoutDaemonTest,
                   public ::testing::WithParamInterface<const char*> {};

TEST_P(GoldenTest, InspectTellsOfOwn) {
  const std::string name = GetParam();
  const std::string path =
      Write(folder_ / "x.bpf.o",
            ReadFile(absl::StrCat(CATALOG_FOLDER, "/", name, ".bpf.o")));
  const Outcome outcome = Run({"inspect", path});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.Describe();
  EXPECT_THAT(outcome.errors, IsEmpty());
  EXPECT_EQ(absl::StrReplaceAll(Stable(outcome.output), {{path, "x.bpf.o"}}),
            ReadFile(absl::StrCat(GOLDEN_FOLDER, "/inspect/", name, ".txt")));
}

INSTANTIATE_TEST_SUITE_P(Own, GoldenTest,
                         ::testing::Values("packet_sampler", "flow_filter",
                                           "reuseport_steer", "tun_steering",
                                           "io_latency"),
                         [](const auto& info) { return info.param; });

// Those of Debian's packages libxdp1 and xdp-tools, whichever version of them
// there is: each can be read.
TEST_F(WithoutDaemonTest, InspectReadsWhatOthersBuilt) {
  int count = 0;
  for (const auto& file : std::filesystem::directory_iterator(FOREIGN_FOLDER)) {
    if (file.path().extension() != ".o") continue;
    ++count;
    const Outcome outcome = Run({"inspect", file.path(), "--json"});
    ASSERT_EQ(outcome.exit_code, 0) << file.path() << outcome.Describe();
    const auto found = Parse<v1::Inspection>(outcome);
    EXPECT_GT(found.program_size(), 0) << file.path();
    EXPECT_TRUE(found.followed()) << file.path();
    for (const v1::InspectedProgram& program : found.program()) {
      EXPECT_FALSE(program.gate());
      EXPECT_GT(program.instructions(), 0u) << file.path();
      EXPECT_FALSE(program.holder().empty());
    }
    const Outcome refused = Run({"approve", file.path(), "--name", "foreign"});
    EXPECT_EQ(refused.exit_code, kRefused) << refused.Describe();
    EXPECT_THAT(refused.output, IsEmpty());
    EXPECT_THAT(refused.errors, HasSubstr("nothing in it that can be granted"));
  }
  EXPECT_GE(count, 10) << "packaging/dependencies/install brings them";
}

TEST_F(WithoutDaemonTest, InspectTellsOfAForeignFilter) {
  const Outcome outcome =
      Run({"inspect", absl::StrCat(FOREIGN_FOLDER, "/xdpfilt_alw_all.o"),
           "--json"});
  const auto found = Parse<v1::Inspection>(outcome);
  ASSERT_EQ(found.program_size(), 1);
  const v1::InspectedProgram& program = found.program(0);
  EXPECT_EQ(program.name(), "xdpfilt_alw_all");
  EXPECT_EQ(program.section(), "xdp");
  EXPECT_EQ(program.type(), "xdp");
  EXPECT_THAT(program.helper(), Contains("map_lookup_elem"));
  EXPECT_THAT(program.reads(), Contains("filter_ipv4"));
  EXPECT_THAT(program.writes(), Contains("xdp_stats_map"));
  std::vector<std::string> maps, dangers;
  for (const v1::InspectedMap& map : found.map()) maps.push_back(map.name());
  for (const v1::Danger& danger : found.danger()) {
    dangers.push_back(absl::StrCat(danger.where(), ": ", danger.what()));
  }
  EXPECT_THAT(maps, AllOf(Contains("filter_ports"), Contains("filter_ipv4"),
                          Contains("filter_ipv6"), Contains("filter_ethernet"),
                          Contains("xdp_stats_map")));
  EXPECT_THAT(dangers, AllOf(Contains("xdpfilt_alw_all: type xdp"),
                             Contains("xdpfilt_alw_all: consults no gate"),
                             Contains("filter_ipv4: asks to be pinned")));
}

// Which takes the loader's entry, that it is linked behind.
TEST_F(WithoutDaemonTest, InspectAndApproveTakeALoop) {
  const std::string loop = absl::StrCat(CATALOG_FOLDER, "/relay.bpf.o");
  const std::string object = Write(folder_ / "relay.bpf.o", ReadFile(loop));
  const auto found = Parse<v1::Inspection>(Run({"inspect", object, "--json"}));
  ASSERT_EQ(found.program_size(), 1);
  EXPECT_EQ(found.program(0).type(), "io_uring_loop");
  EXPECT_TRUE(found.program(0).gate());
  const Outcome draft = Run({"approve", object, "--catalog", old_});
  EXPECT_EQ(draft.exit_code, 0) << draft.Describe();
  EXPECT_THAT(draft.errors, HasSubstr("opcode: DECIDE"));
}

TEST_F(WithoutDaemonTest, InspectsExitCodes) {
  const std::string text = Write(folder_ / "text.o", "no object\n");
  const Outcome refused = Run({"inspect", text, "--json"});
  EXPECT_EQ(refused.exit_code, kRefused);
  EXPECT_THAT(refused.output, HasSubstr("REASON_FILE_INVALID"));
  EXPECT_THAT(refused.errors, HasSubstr("text.o: it is no BPF object"));
  EXPECT_EQ(Run({"inspect", "/nowhere"}).exit_code, kUsage);
  EXPECT_EQ(Run({"inspect", "/tmp"}).exit_code, kUsage);
  EXPECT_EQ(Run({"inspect"}).exit_code, kUsage);
  EXPECT_EQ(
      Run({"inspect", old_ / "packet_sampler.bpf.o", "--timeout", "0.001"})
          .exit_code,
      kLate);
}

TEST_F(WithoutDaemonTest, ApproveWritesADraftThatVerifies) {
  const auto fresh = folder_ / "fresh";
  std::filesystem::create_directory(fresh);
  chmod(fresh.c_str(), 0755);
  const std::string object =
      Write(fresh / "sampler.bpf.o", ReadFile(old_ / "packet_sampler.bpf.o"));
  const Outcome draft = Run({"approve", object, "--catalog", fresh});
  ASSERT_EQ(draft.exit_code, 0) << draft.Describe();
  EXPECT_THAT(draft.errors, AllOf(HasSubstr("To be decided: sampler.manifest:"),
                                  HasSubstr("on_revoke: DECIDE")));
  EXPECT_EQ(draft.output, Run({"approve", object, "--catalog", fresh}).output);
  Write(fresh / "sampler.manifest", draft.output);
  const Outcome open = Run({"verify", fresh});
  EXPECT_EQ(open.exit_code, kRefused);
  EXPECT_THAT(open.output, HasSubstr("sampler.manifest:"));
  Replace(fresh / "sampler.manifest", "on_revoke: DECIDE", "on_revoke: PASS");
  const Outcome verified = Run({"verify", fresh});
  EXPECT_EQ(verified.exit_code, 0) << verified.Describe();
}

TEST_F(WithoutDaemonTest, ApproveTellsWhatChangesOfWhatIsKnown) {
  const std::string object = old_ / "packet_sampler.bpf.o";
  const Outcome same = Run({"approve", object, "--catalog", old_});
  EXPECT_EQ(same.exit_code, 0) << same.Describe();
  EXPECT_THAT(same.errors, HasSubstr("approves it already"));
  Replace(old_ / "packet_sampler.manifest", "type: SOCKET_FILTER",
          "type: SOCKET_FILTER target: TARGET_TUN");
  std::string bytes = ReadFile(object);
  // Behind everything: another digest, the same program.
  const std::string other = Write(folder_ / "other.bpf.o", bytes + "x");
  const Outcome changed =
      Run({"approve", other, "--name", "packet_sampler", "--catalog", old_});
  EXPECT_EQ(changed.exit_code, 0) << changed.Describe();
  EXPECT_THAT(changed.errors,
              AllOf(HasSubstr("packet_sampler.manifest is "
                              "known; what changes:"),
                    HasSubstr("\n-sha256: \""), HasSubstr("\n+sha256: \""),
                    Not(HasSubstr("To be decided"))));
  EXPECT_THAT(changed.output, HasSubstr("target: TARGET_TUN"));
  const auto draft =
      Parse<v1::Draft>(Run({"approve", other, "--name", "packet_sampler",
                            "--catalog", old_, "--json"}));
  EXPECT_EQ(draft.file(), "packet_sampler.manifest");
  EXPECT_THAT(draft.decision(), IsEmpty());
}

TEST_F(WithoutDaemonTest, VerifyNamesThePlaceOfEachComplaint) {
  EXPECT_EQ(Run({"verify", old_}).exit_code, 0);
  Replace(old_ / "packet_sampler.manifest", "RIGHTS_READ_WRITE", "RIGHTS_READ");
  Write(old_ / "a.policy", "rule { name: \"a\"\n  effect: MAYBE }\n");
  Write(old_ / "b.policy", "rule {\n  effect: ALLOW everyone: true }\n");
  const Outcome outcome = Run({"verify", old_});
  EXPECT_EQ(outcome.exit_code, kRefused) << outcome.Describe();
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("packet_sampler.manifest:"),
                    HasSubstr("A reload would refuse the policy"),
                    HasSubstr("a.policy:2:"), HasSubstr("b.policy:1:"),
                    HasSubstr("takes CAP_BPF and CAP_PERFMON")));
  const auto reply = Parse<v1::CheckReply>(Run({"verify", old_, "--json"}));
  EXPECT_EQ(reply.policy().complaint_size(), 2);
}

// What else would make a reload refuse it, or take a program away.
TEST_F(WithoutDaemonTest, VerifyLooksAtSignaturesLimitsAndTrust) {
  const std::string policy =
      "rule { name: \"a\" effect: ALLOW user: \"65534\" program: \"*\"\n"
      "  quota { grants: 1 } trusted: true }\n";
  Write(old_ / "a.policy", policy);
  EXPECT_EQ(Run({"verify", old_}).exit_code, 0);
  // As the documents have it: of a folder that is none of these.
  Write(old_ / "b.policy",
        "signature { name: \"s\" directory: \"/usr/lib/bpfgrant/programs\" }");
  EXPECT_EQ(Run({"verify", old_}).exit_code, 0);

  Write(old_ / "b.policy",
        "signature { name: \"s\" program: \"packet_sampler\" }");
  const Outcome unsigned_one = Run({"verify", old_, "--keys", folder_});
  EXPECT_EQ(unsigned_one.exit_code, kRefused) << unsigned_one.Describe();
  EXPECT_THAT(unsigned_one.output, HasSubstr("signature rule 's'"));
  EXPECT_EQ(Root({"keygen", "ours", "--directory", folder_}).exit_code, 0);
  EXPECT_EQ(Root({"sign", old_ / "packet_sampler.manifest", "--key",
                  folder_ / "ours.key"})
                .exit_code,
            0);
  const Outcome signed_one = Run({"verify", old_, "--keys", folder_});
  EXPECT_EQ(signed_one.exit_code, 0) << signed_one.Describe();

  const std::string limits =
      Write(folder_ / "limits.conf", "total { maps: 1 }\n");
  const Outcome too_many =
      Run({"verify", old_, "--keys", folder_, "--admission", limits});
  EXPECT_EQ(too_many.exit_code, kRefused) << too_many.Describe();
  EXPECT_THAT(too_many.output, HasSubstr("limits.conf:1:"));
  Write(folder_ / "limits.conf", "trusted_user: \"root\"\n");
  const Outcome trusting =
      Run({"verify", old_, "--keys", folder_, "--admission", limits});
  EXPECT_EQ(trusting.exit_code, kRefused) << trusting.Describe();
  EXPECT_THAT(trusting.output, HasSubstr("A reload would refuse the policy"));
}

TEST_F(WithoutDaemonTest, VerifyJudgesFilesUnlessToldNotTo) {
  chmod(old_.c_str(), 0777);
  const Outcome unsafe = Run({"verify", old_});
  EXPECT_EQ(unsafe.exit_code, kRefused) << unsafe.Describe();
  const Outcome any = Run({"verify", old_, "--any-owner"});
  EXPECT_EQ(any.exit_code, 0) << any.Describe();
}

TEST_F(WithoutDaemonTest, DiffTellsWhatChanged) {
  const auto changed = Catalog("new");
  const Outcome same = Run({"diff", old_, changed});
  EXPECT_EQ(same.exit_code, 0) << same.Describe();
  EXPECT_THAT(same.output, IsEmpty());
  const auto manifest = changed / "packet_sampler.manifest";
  Replace(manifest, "delivery: DELIVERY_PROGRAM", "");
  Replace(manifest, "rights: RIGHTS_READ\n", "rights: RIGHTS_READ_WRITE\n");
  Replace(manifest, "ready: 4", "ready: 7");
  std::filesystem::remove(changed / "reuseport_steer.manifest");
  Write(changed / "third.manifest", "name: \"third\"");
  const Outcome outcome = Run({"diff", old_, changed});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("removed: reuseport_steer\nadded: third\n"
                              "changed: packet_sampler\n"),
                    HasSubstr("  program.delivery\n"
                              "  - DELIVERY_PROGRAM, DELIVERY_ATTACH\n"
                              "  + DELIVERY_ATTACH\n"),
                    HasSubstr("  map[counters].rights\n"
                              "  - RIGHTS_READ\n  + RIGHTS_READ_WRITE\n"),
                    HasSubstr("  pool.ready\n  - 4\n  + 7\n"),
                    HasSubstr("  interface_hash\n")));
  const auto diff =
      Parse<v1::CatalogDiff>(Run({"diff", old_, changed, "--json"}));
  EXPECT_THAT(diff.added(), ElementsAre("third"));
  EXPECT_THAT(diff.removed(), ElementsAre("reuseport_steer"));
  ASSERT_EQ(diff.changed_size(), 1);
}

TEST_F(WithoutDaemonTest, DiffTellsOfADigestAndWhatIsRefused) {
  const auto changed = Catalog("new");
  const auto object = changed / "packet_sampler.bpf.o";
  Write(object, ReadFile(object) + "x");
  const Outcome outcome = Run({"diff", old_, changed});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("packet_sampler.manifest:"));
  EXPECT_THAT(outcome.output, HasSubstr("the object's digest is "));
  EXPECT_THAT(outcome.output, Not(HasSubstr(changed.string())));
}

TEST_F(WithoutDaemonTest, DiffsTroubleIsNoDifference) {
  EXPECT_EQ(Run({"diff", old_, "/nowhere"}).exit_code, kUsage);
  EXPECT_EQ(Run({"diff", old_}).exit_code, kUsage);
  EXPECT_EQ(Run({"diff", old_, old_, "--timeout", "0.001"}).exit_code, kLate);
  const auto closed = Catalog("closed");
  chmod(closed.c_str(), 0700);
  EXPECT_EQ(Run({"diff", old_, closed}).exit_code, kBroken);
}

}  // namespace
}  // namespace bpfgrant::test

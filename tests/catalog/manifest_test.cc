#include "daemon/loader/manifest.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

absl::Status Parse(const std::string& bytes, const std::string& stem = "x") {
  return Manifest::Parse("/etc/x.manifest", stem, bytes).status();
}

absl::Status ParseWith(const std::string& from, const std::string& to) {
  return Parse(SampleManifest("x", "bytes", from, to));
}

TEST(ManifestTest, TakesAGoodOne) {
  const auto manifest =
      Manifest::Parse("/etc/x.manifest", "x", SampleManifest("x", "bytes"));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ((*manifest)->message().map_size(), 4);
}

// Every complaint says file, line and column.
struct Complaint {
  const char* from;
  const char* to;
  const char* expected;
};

// CTest names the case by it.
void PrintTo(const Complaint& complaint, std::ostream* stream) {
  *stream << complaint.expected;
}

class ManifestComplaintTest : public ::testing::TestWithParam<Complaint> {};

TEST_P(ManifestComplaintTest, HasItsPlace) {
  const Complaint& complaint = GetParam();
  EXPECT_THAT(ParseWith(complaint.from, complaint.to),
              Refused(v1::REASON_FILE_INVALID, complaint.expected));
}

INSTANTIATE_TEST_SUITE_P(
    All, ManifestComplaintTest,
    ::testing::Values(
        Complaint{"name: \"x\"\n", "\nname: \"X\"\n", "x.manifest:2:1: name"},
        Complaint{"name: \"x\"\n", "name: \"y\"\n", "x.manifest:1:1: name is"},
        Complaint{"x/1", "x", "x.manifest:2:1: interface"},
        Complaint{"x/1", "y/1", "x.manifest:2:1: interface"},
        Complaint{"x/1", "x/01", "x.manifest:2:1: interface"},
        Complaint{"x/1", "x/0", "x.manifest:2:1: interface"},
        Complaint{"x/1", "x/+1", "x.manifest:2:1: interface"},
        Complaint{"x/1", "x/99999999999", "x.manifest:2:1: interface"},
        Complaint{"\"x.bpf.o\"", "\"../x.bpf.o\"", "x.manifest:4:1: object"},
        Complaint{"\"x.bpf.o\"", "\"\"", "x.manifest:4:1: object"},
        Complaint{"\"x.bpf.o\"", "\".hidden\"", "x.manifest:4:1: object"},
        Complaint{"sha256: \"", "sha256: \"A", "x.manifest:5:1: sha256"},
        Complaint{"  function: \"sample\"\n", "", "x.manifest:6:1: function"},
        Complaint{"  type: SOCKET_FILTER\n", "", "x.manifest:6:1: type"},
        Complaint{"  delivery: DELIVERY_PROGRAM\n  delivery: DELIVERY_ATTACH\n",
                  "", "x.manifest:6:1: delivery"},
        Complaint{"delivery: DELIVERY_ATTACH", "delivery: DELIVERY_ANY",
                  "x.manifest:10:3: a delivery is"},
        Complaint{"delivery: DELIVERY_ATTACH", "delivery: DELIVERY_PROGRAM",
                  "x.manifest:10:3: this delivery stands here twice"},
        Complaint{"  on_revoke: DROP\n", "", "x.manifest:6:1: on_revoke"},
        Complaint{"\"config\"\n  kind", "\"events\"\n  kind",
                  "x.manifest:21:3: map 'events' is named twice"},
        Complaint{"handle: \"config\"", "handle: \"events\"",
                  "x.manifest:23:3: handle 'events' is named twice"},
        Complaint{"handle: \"config\"", "handle: \"Config\"",
                  "x.manifest:23:3: a handle's name"},
        Complaint{"  kind: HANDLE_KIND_HASH\n", "",
                  "x.manifest:32:1: the kind"},
        Complaint{"kind: HANDLE_KIND_HASH", "kind: HANDLE_KIND_PROGRAM",
                  "x.manifest:34:3: the kind"},
        Complaint{"  rights: RIGHTS_WRITE\n", "",
                  "x.manifest:32:1: the rights of handle 'orders'"},
        Complaint{"  handle: \"orders\"\n", "",
                  "x.manifest:35:3: rights are for maps with a handle"},
        Complaint{"\"events\"\n  rights: RIGHTS_READ_WRITE",
                  "\"events\"\n  rights: RIGHTS_READ",
                  "x.manifest:17:3: a ring buffer"},
        Complaint{"\"sample_event\"", "\"struct sample_event\"",
                  "x.manifest:18:3: a structure"},
        Complaint{"on_revoke: DROP", "on_revoke: DROP target: TARGET_REUSEPORT",
                  "x.manifest:11:19: a program of type SOCKET_FILTER"},
        Complaint{"type: SOCKET_FILTER",
                  "type: SK_REUSEPORT target: TARGET_TUN",
                  "x.manifest:8:22: a program of type SK_REUSEPORT"},
        Complaint{"on_revoke: DROP", "on_revoke: DROP target: 77",
                  "x.manifest:11:19: "},
        // What the parser itself says.
        Complaint{"object:", "colour: 1 object:", "x.manifest:4:"},
        Complaint{"object:", "object: \"y\"\nobject:", "x.manifest:5:"},
        Complaint{"type: SOCKET_FILTER", "type: XDP", "x.manifest:8:"}));

TEST(ManifestTest, TheTypeSaysWhatItIsAttachedToUnlessTheManifestDoes) {
  v1::Manifest::Program program;
  program.set_type(v1::Manifest::SOCKET_FILTER);
  EXPECT_EQ(TargetOf(program), v1::TARGET_SOCKET);
  program.set_target(v1::TARGET_TUN);
  EXPECT_EQ(TargetOf(program), v1::TARGET_TUN);
  program.clear_target();
  program.set_type(v1::Manifest::SK_REUSEPORT);
  EXPECT_EQ(TargetOf(program), v1::TARGET_REUSEPORT);
  program.set_type(v1::Manifest::IO_URING_LOOP);
  EXPECT_EQ(TargetOf(program), v1::TARGET_UNSPECIFIED);
}

TEST(ManifestTest, PoolIsLimited) {
  EXPECT_THAT(Parse(SampleManifest("x", "bytes") + "pool { ready: 1025 }\n"),
              Refused(v1::REASON_FILE_INVALID, "x.manifest:38:8: ready"));
  EXPECT_TRUE(
      Parse(SampleManifest("x", "bytes") + "pool { ready: 1024 }\n").ok());
}

TEST(ManifestTest, TagsAreWords) {
  EXPECT_THAT(Parse(SampleManifest("x", "bytes") + "tag: ['net', 'Io']\n"),
              Refused(v1::REASON_FILE_INVALID, "x.manifest:38:14: a tag"));
  EXPECT_TRUE(Parse(SampleManifest("x", "bytes") + "tag: ['net']\n").ok());
}

TEST(ManifestTest, RefusesNulBytesAndRubbish) {
  EXPECT_THAT(Parse(SampleManifest("x", "bytes") + std::string(1, '\0')),
              Refused(v1::REASON_FILE_INVALID, "x.manifest:"));
  EXPECT_THAT(Parse("\x7f"
                    "ELF\x02\x01\x01"),
              Refused(v1::REASON_FILE_INVALID, "x.manifest:"));
  EXPECT_THAT(Parse(""), Refused(v1::REASON_FILE_INVALID, "x.manifest:"));
}

TEST(ManifestTest, LimitsHandles) {
  std::string text = SampleManifest("x", "bytes");
  for (int i = 0; i < 12; ++i) {
    absl::StrAppend(&text, "map { name: \"m", i, "\" kind: HANDLE_KIND_ARRAY ",
                    "handle: \"m", i, "\" rights: RIGHTS_READ }\n");
  }
  EXPECT_THAT(Parse(text),
              Refused(v1::REASON_FILE_INVALID, "at most 15 handles"));
}

TEST(ManifestTest, Names) {
  EXPECT_TRUE(IsName("a"));
  EXPECT_TRUE(IsName("packet_sampler2"));
  EXPECT_TRUE(IsName(std::string(63, 'a')));
  for (const char* name :
       {"", "A", "1a", "_a", "a-b", "a/b", "a b", "\xc3\xa4"}) {
    EXPECT_FALSE(IsName(name)) << name;
  }
  EXPECT_FALSE(IsName(std::string(64, 'a')));
}

}  // namespace
}  // namespace bpfgrant::daemon

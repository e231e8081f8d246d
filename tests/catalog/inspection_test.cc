// What is told of an object that nobody approved yet: this build's own, whose
// sources say what is right.

#include "daemon/loader/inspection/inspection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "daemon/loader/inspection/code.h"
#include "daemon/loader/inspection/map_use.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr std::chrono::seconds kLong{60};

v1::Inspection InspectShipped(const std::string& name) {
  const auto inspection =
      InspectFile(std::string(CATALOG_FOLDER) + "/" + name + ".bpf.o", kLong);
  EXPECT_TRUE(inspection.ok()) << inspection.status();
  return inspection.ok() ? *inspection : v1::Inspection();
}

v1::Inspection InspectSample(const std::string& variant) {
  const TemporaryFolder folder;
  const auto inspection =
      InspectFile(folder.Write("x.bpf.o", ObjectBytes(variant)), kLong);
  EXPECT_TRUE(inspection.ok()) << inspection.status();
  return inspection.ok() ? *inspection : v1::Inspection();
}

v1::InspectedMap MapOf(const v1::Inspection& inspection,
                       const std::string& name) {
  for (const v1::InspectedMap& map : inspection.map()) {
    if (map.name() == name) return map;
  }
  ADD_FAILURE() << "no map " << name;
  return {};
}

// "where: what" of all dangers.
std::vector<std::string> DangersOf(const v1::Inspection& inspection) {
  std::vector<std::string> dangers;
  for (const v1::Danger& danger : inspection.danger()) {
    EXPECT_FALSE(danger.why().empty());
    dangers.push_back(danger.where() + ": " + danger.what());
  }
  return dangers;
}

TEST(InspectionTest, OfAFilter) {
  const v1::Inspection found = InspectShipped("packet_sampler");
  EXPECT_EQ(found.sha256().size(), 64u);
  EXPECT_TRUE(found.btf());
  EXPECT_TRUE(found.followed());
  ASSERT_EQ(found.program_size(), 1);
  const v1::InspectedProgram& program = found.program(0);
  EXPECT_EQ(program.name(), "packet_sampler");
  EXPECT_EQ(program.type(), "socket_filter");
  EXPECT_TRUE(program.gate());
  EXPECT_GT(program.instructions(), 50u);
  EXPECT_THAT(program.helper(), Contains("map_lookup_elem"));
  EXPECT_THAT(program.helper(), Contains("ringbuf_reserve"));
  EXPECT_THAT(program.kfunc(), IsEmpty());
  EXPECT_THAT(found.danger(), IsEmpty());
}

TEST(InspectionTest, WhoReadsAndWritesWhat) {
  const v1::Inspection found = InspectShipped("packet_sampler");
  const auto samples = MapOf(found, "samples");
  EXPECT_EQ(samples.type(), "ringbuf");
  EXPECT_THAT(samples.reader(), IsEmpty());
  EXPECT_THAT(samples.writer(), ElementsAre("packet_sampler"));
  const auto config = MapOf(found, "config");
  EXPECT_EQ(config.value_type(), "packet_sampler_config");
  EXPECT_THAT(config.reader(), ElementsAre("packet_sampler"));
  EXPECT_THAT(config.writer(), IsEmpty());
  EXPECT_THAT(MapOf(found, "counters").writer(), ElementsAre("packet_sampler"));
  const auto gate = MapOf(found, "bpfgrant_gate");
  EXPECT_THAT(gate.reader(), ElementsAre("packet_sampler"));
  EXPECT_THAT(gate.writer(), IsEmpty());
  const auto sockets = MapOf(InspectShipped("reuseport_steer"), "sockets");
  EXPECT_THAT(sockets.reader(), ElementsAre("reuseport_steer"));
  EXPECT_THAT(sockets.writer(), IsEmpty());
}

// The rules are written by a function that bpf_user_ringbuf_drain calls, with
// what it needs on the stack of its caller.
TEST(InspectionTest, FollowsCallbacks) {
  const v1::Inspection found = InspectShipped("flow_filter");
  EXPECT_THAT(MapOf(found, "commands").reader(), ElementsAre("flow_filter"));
  EXPECT_THAT(MapOf(found, "commands").writer(), IsEmpty());
  EXPECT_THAT(MapOf(found, "verdicts").writer(), ElementsAre("flow_filter"));
  EXPECT_THAT(MapOf(found, "verdicts").reader(), ElementsAre("flow_filter"));
  EXPECT_THAT(MapOf(found, "events").writer(), ElementsAre("flow_filter"));
  EXPECT_THAT(MapOf(found, "config").writer(), IsEmpty());
}

TEST(InspectionTest, OfATracingProgram) {
  const v1::Inspection found = InspectShipped("io_latency");
  EXPECT_EQ(found.program_size(), 3);
  for (const v1::InspectedProgram& program : found.program()) {
    EXPECT_EQ(program.type(), "tracing");
    EXPECT_EQ(program.attach(), "trace_raw_tp");
  }
  const auto latencies = MapOf(found, "latencies");
  EXPECT_EQ(latencies.type(), "array_of_maps");
  EXPECT_EQ(latencies.inner().type(), "array");
  EXPECT_THAT(latencies.writer(), Contains("io_latency_complete"));
  EXPECT_THAT(MapOf(found, "settings").writer(), IsEmpty());
  EXPECT_THAT(DangersOf(found), Contains("io_latency_complete: type tracing"));
}

// What the author left open, the loader's entry closes: it is inspected as it
// would be loaded.
TEST(InspectionTest, OfALoop) {
  const v1::Inspection found = InspectShipped("chain");
  ASSERT_EQ(found.program_size(), 1);
  const v1::InspectedProgram& program = found.program(0);
  EXPECT_EQ(program.name(), "bpfgrant_step");
  EXPECT_EQ(program.type(), kLoopType);
  EXPECT_TRUE(program.gate());
  EXPECT_TRUE(program.sleepable());
  EXPECT_THAT(program.kfunc(), Contains("bpf_io_uring_submit_sqes"));
}

TEST(InspectionTest, NamesDangers) {
  EXPECT_THAT(DangersOf(InspectSample("good")), IsEmpty());
  EXPECT_THAT(DangersOf(InspectSample("no_gate")),
              ElementsAre("sample: consults no gate"));
  EXPECT_THAT(DangersOf(InspectSample("gate_unused")),
              ElementsAre("sample: consults no gate"));
  const v1::Inspection pinned = InspectSample("pinned_map");
  EXPECT_TRUE(std::ranges::any_of(pinned.danger(), [](const auto& danger) {
    return danger.what() == "asks to be pinned";
  }));
}

TEST(InspectionTest, TellsWhoWritesTheGate) {
  for (const char* variant :
       {"writes_gate", "writes_gate_sometimes", "updates_gate"}) {
    EXPECT_THAT(MapOf(InspectSample(variant), "bpfgrant_gate").writer(),
                Not(IsEmpty()))
        << variant;
  }
  EXPECT_THAT(MapOf(InspectSample("good"), "bpfgrant_gate").writer(),
              IsEmpty());
}

TEST(InspectionTest, NeedsAFileThatCanBeRead) {
  for (const char* path : {"/nowhere", "/tmp", "/dev/zero"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(InspectFile(path, kLong).status()))
        << path;
  }
  const TemporaryFolder folder;
  const std::string large = folder.Write("large", std::string(17 << 20, 'x'));
  EXPECT_THAT(InspectFile(large, kLong).status(),
              Refused(v1::REASON_TOO_LARGE, "16777216"));
}

TEST(MapUseTest, InDoubtAllThatIsReferredTo) {
  const Code code = ReadCode(ObjectBytes("good"));
  const MapUses followed = FollowMaps(code);
  const MapUses stopped = FollowMaps(code, 10);
  EXPECT_TRUE(followed.followed);
  EXPECT_FALSE(stopped.followed);
  ASSERT_EQ(stopped.of.size(), followed.of.size());
  for (size_t f = 0; f < stopped.of.size(); ++f) {
    EXPECT_EQ(stopped.of[f].written, stopped.of[f].read);
    EXPECT_EQ(followed.of[f].written & ~stopped.of[f].written, 0u);
    EXPECT_NE(stopped.of[f].written, followed.of[f].written);
  }
}

}  // namespace
}  // namespace bpfgrant::daemon

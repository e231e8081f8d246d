// What is told of an object that nobody approved yet: this build's own, whose
// sources say what is right.

#include "daemon/loader/inspection/inspection.h"

#include <elf.h>
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

// As many places to jump to as there are instructions.
TEST(MapUseTest, GivesUpOnWhatIsTooLarge) {
  const auto all_followed = [](size_t instructions) {
    Code code;
    code.functions.emplace_back().code.resize(
        instructions, bpf_insn{BPF_JMP | BPF_JEQ, 0, 0, 0, 0});
    return FollowMaps(code).followed;
  };
  EXPECT_TRUE(all_followed(50'000));
  EXPECT_FALSE(all_followed(2'000'000));
}

// A function in another is its code once more, as often as there are names.
TEST(CodeTest, FunctionsDoNotOverlap) {
  const Code code = ReadCode(ObjectBytes("several_programs"));
  EXPECT_GT(code.functions.size(), 1u);
  std::string bytes = ObjectBytes("several_programs");
  auto* header = reinterpret_cast<Elf64_Ehdr*>(bytes.data());
  auto* sections =
      reinterpret_cast<Elf64_Shdr*>(bytes.data() + header->e_shoff);
  for (int i = 0; i < header->e_shnum; ++i) {
    if (sections[i].sh_type != SHT_SYMTAB) continue;
    auto* symbols =
        reinterpret_cast<Elf64_Sym*>(bytes.data() + sections[i].sh_offset);
    // The later, the nearer to the begin, and all up to the same end.
    const size_t count = sections[i].sh_size / sizeof(Elf64_Sym);
    for (size_t s = 0; s < count; ++s) {
      if (ELF64_ST_TYPE(symbols[s].st_info) != STT_FUNC) continue;
      symbols[s].st_value = 8 * (count - s);
      symbols[s].st_size = 8 * s;
    }
  }
  size_t instructions = 0;
  for (const Function& function : ReadCode(bytes).functions) {
    instructions += function.code.size();
  }
  EXPECT_LE(instructions, bytes.size() / sizeof(bpf_insn));
  EXPECT_LT(ReadCode(bytes).functions.size(), code.functions.size());
}

}  // namespace
}  // namespace bpfgrant::daemon

// Swappable maps: what the loader makes of them, and which objects it refuses.

#include <bpf/bpf.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/instance.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

using ::testing::HasSubstr;

constexpr uint32_t kSlot = 7;
constexpr uint64_t kNonce = 0x1234567890abcdef;

class SwapTest : public ::testing::Test {
 protected:
  void SetUp() override { REQUIRE_BPF(); }

  // The object of that name, with `map` as the manifest's map and others.
  std::shared_ptr<const Program> Admit(
      const std::string& sample, const std::string& map = kCounts,
      const std::string& type = "SOCKET_FILTER") {
    const std::string object = ObjectBytes(sample);
    EXPECT_FALSE(object.empty()) << sample;
    folder_.Write("swapped.bpf.o", object);
    folder_.Write("swapped.manifest",
                  absl::StrCat("name: \"swapped\"\ninterface: \"swapped/1\"\n"
                               "object: \"swapped.bpf.o\"\nsha256: \"",
                               Sha256({object}),
                               "\"\nprogram {\n  function: \"swapped\"\n"
                               "  type: ",
                               type,
                               "\n  delivery: DELIVERY_PROGRAM\n"
                               "  on_revoke: PASS\n}\n",
                               map));
    return AdmitFrom(folder_.path(), "swapped");
  }
  void ExpectRefused(const std::string& sample, v1::Reason reason,
                     const std::string& what,
                     const std::string& map = kCounts) {
    const auto program = Admit(sample, map);
    EXPECT_EQ(ReasonFor(*program), reason) << sample;
    EXPECT_THAT(RefusalFor(*program), HasSubstr(what)) << sample;
  }
  static std::string Counts(const std::string& from, const std::string& to) {
    EXPECT_THAT(kCounts, HasSubstr(from));
    return absl::StrReplaceAll(kCounts, {{from, to}});
  }

  static inline const std::string kCounts =
      "map {\n  name: \"counts\"\n  kind: HANDLE_KIND_ARRAY\n"
      "  handle: \"counts\"\n  rights: RIGHTS_READ\n  swappable: true\n}\n";
  TemporaryFolder folder_;
};

TEST_F(SwapTest, AreTwoHandles) {
  const auto program = Admit("swap_good");
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  const auto& handles = program->entry.description().handle();
  ASSERT_EQ(handles.size(), 2);
  for (int copy = 0; copy < 2; ++copy) {
    EXPECT_EQ(handles[copy].name(), absl::StrCat("counts.", copy));
    EXPECT_EQ(handles[copy].swappable(), "counts");
    EXPECT_EQ(handles[copy].kind(), v1::HANDLE_KIND_ARRAY);
    EXPECT_EQ(handles[copy].value_size(), 8u);
    EXPECT_EQ(handles[copy].max_entries(), 4u);
  }
  EXPECT_GE(program->entry.description().instance_bytes(), 2u * 4 * 8);
}

// The gate's slot says which of them a run has.
TEST_F(SwapTest, TheProgramSeesTheOneThatTheSlotSays) {
  const auto program = Admit("swap_good");
  ASSERT_TRUE(program->available()) << RefusalFor(*program);
  const UniqueFd gate(MakeGate(kSlot, kNonce));
  const auto instance = LoadInstance(*program, {gate.get()}, kSlot, kNonce, {});
  ASSERT_TRUE(instance.ok()) << instance.status();
  ASSERT_EQ(instance->handles.size(), 2u);
  const auto count = [&](int copy) {
    const uint32_t zero = 0;
    uint64_t value = 0;
    EXPECT_EQ(bpf_map_lookup_elem(instance->handles[copy].get(), &zero, &value),
              0);
    return value;
  };
  const auto run = [&](uint64_t swaps) {
    const bpfgrant_gate_entry entry = {.nonce = kNonce, .swaps = swaps};
    ASSERT_EQ(bpf_map_update_elem(gate.get(), &kSlot, &entry, BPF_ANY), 0);
    EXPECT_GT(RunFilter(instance->program.get()), 0);
  };
  run(0);
  EXPECT_EQ(count(0), 1u);
  EXPECT_EQ(count(1), 0u);
  run(1);
  run(1);
  EXPECT_EQ(count(0), 1u);
  EXPECT_EQ(count(1), 2u);
  // Others' bits are nothing to it.
  run(~uint64_t{1});
  EXPECT_EQ(count(0), 2u);
}

TEST_F(SwapTest, HandlesHaveTheManifestsRights) {
  const UniqueFd gate(MakeGate(kSlot, kNonce));
  const uint32_t zero = 0;
  uint64_t value = 5;
  for (const bool narrowed : {true, false}) {
    const auto program = Admit("swap_good");
    Mitigations mitigations;
    mitigations.narrowed_handles = narrowed;
    const auto instance =
        LoadInstance(*program, {gate.get()}, kSlot, kNonce, mitigations);
    ASSERT_TRUE(instance.ok()) << instance.status();
    for (const UniqueFd& handle : instance->handles) {
      EXPECT_EQ(bpf_map_update_elem(handle.get(), &zero, &value, BPF_ANY) == 0,
                !narrowed);
      EXPECT_EQ(bpf_map_lookup_elem(handle.get(), &zero, &value), 0);
    }
  }
}

TEST_F(SwapTest, APairThatCouldBeReachedOtherwiseIsRefused) {
  // Directly: the map is a map of the object's, too.
  ExpectRefused(
      "swap_filled", v1::REASON_OBJECT_MISMATCH, "puts maps into it",
      kCounts + "map { name: \"reached\" kind: HANDLE_KIND_ARRAY }\n");
  // Through another slot than the one that the gate says.
  ExpectRefused("swap_by_itself", v1::REASON_OBJECT_MISMATCH,
                "otherwise than by bpfgrant_now()");
  ExpectRefused("swap_other_number", v1::REASON_OBJECT_MISMATCH,
                "its number there is not 0");
}

TEST_F(SwapTest, OtherObjectsAreRefused) {
  ExpectRefused("swap_unused", v1::REASON_OBJECT_MISMATCH,
                "does not look at it");
  ExpectRefused("swap_of_three", v1::REASON_OBJECT_MISMATCH,
                "is no BPFGRANT_SWAPPABLE");
  ExpectRefused("swap_plain", v1::REASON_OBJECT_MISMATCH,
                "is no BPFGRANT_SWAPPABLE");
  ExpectRefused("swap_good", v1::REASON_OBJECT_MISMATCH,
                "is no BPFGRANT_SWAPPABLE", Counts("_ARRAY", "_HASH"));
  // A pair that the manifest does not say to be one.
  ExpectRefused("swap_good", v1::REASON_OBJECT_MISMATCH,
                "is of type array_of_maps", Counts("  swappable: true\n", ""));
}

TEST_F(SwapTest, MistakesInTheText) {
  ExpectRefused("swap_good", v1::REASON_FILE_INVALID, ":16:3: only arrays",
                Counts("_ARRAY", "_RING_BUFFER"));
  ExpectRefused("swap_good", v1::REASON_FILE_INVALID,
                ":14:3: a swappable map has",
                Counts("  handle: \"counts\"\n  rights: RIGHTS_READ\n", ""));
  ExpectRefused("swap_good", v1::REASON_FILE_INVALID,
                ":16:3: a swappable map has",
                Counts("  swappable: true\n",
                       "  swappable: true\n  scope: SCOPE_SESSION\n"));
  std::string many = kCounts;
  for (uint32_t i = 0; i < kMaxFdsPerGrant / 2; ++i) {
    const std::string name = absl::StrCat("map_", i);
    many += Counts("\"counts\"", absl::StrCat("\"", name, "\""));
  }
  ExpectRefused("swap_good", v1::REASON_FILE_INVALID, "handles, of which",
                many);
}

}  // namespace
}  // namespace bpfgrant::daemon

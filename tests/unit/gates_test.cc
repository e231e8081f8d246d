#include "daemon/broker/gates.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {
namespace {

constexpr uint32_t kSlots = 1024;

// A memfd stands for the gate map; the test sees it as a program would, through
// a mapping of its own.
class GatesTest : public ::testing::Test {
 protected:
  void TearDown() override {
    if (seen_ != nullptr) munmap(seen_, kSlots * sizeof(bpfgrant_gate_entry));
  }
  Gates Map(bool fresh_nonces = true) {
    UniqueFd map(memfd_create("gates", MFD_CLOEXEC));
    EXPECT_EQ(ftruncate(map.get(), kSlots * sizeof(bpfgrant_gate_entry)), 0);
    seen_ = static_cast<bpfgrant_gate_entry*>(
        mmap(nullptr, kSlots * sizeof(bpfgrant_gate_entry), PROT_READ,
             MAP_SHARED, map.get(), 0));
    absl::StatusOr<Gates> gates =
        Gates::Map(std::move(map), kSlots, fresh_nonces);
    EXPECT_TRUE(gates.ok()) << gates.status();
    return *std::move(gates);
  }
  uint64_t Seen(Gates::Gate gate) const { return seen_[gate.slot].nonce; }

 private:
  bpfgrant_gate_entry* seen_ = nullptr;
};

TEST_F(GatesTest, AreClosedUntilOpened) {
  Gates gates = Map();
  const Gates::Gate gate = gates.Allocate().value();
  EXPECT_NE(gate.nonce, 0u);
  EXPECT_FALSE(gates.IsOpen(gate));
  EXPECT_EQ(Seen(gate), 0u);
  gates.Open(gate);
  EXPECT_TRUE(gates.IsOpen(gate));
  EXPECT_EQ(Seen(gate), gate.nonce);
  gates.Close(gate);
  EXPECT_FALSE(gates.IsOpen(gate));
  EXPECT_EQ(Seen(gate), 0u);
  gates.Close(gate);
  EXPECT_EQ(Seen(gate), 0u);
}

TEST_F(GatesTest, FreeCloses) {
  Gates gates = Map();
  const Gates::Gate gate = gates.Allocate().value();
  gates.Open(gate);
  EXPECT_EQ(gates.used(), 1u);
  gates.Free(gate);
  EXPECT_EQ(Seen(gate), 0u);
  EXPECT_EQ(gates.used(), 0u);
}

TEST_F(GatesTest, NextTenantHasAnotherNonce) {
  Gates gates = Map();
  const Gates::Gate old = gates.Allocate().value();
  gates.Open(old);
  gates.Free(old);
  const Gates::Gate next = gates.Allocate().value();
  ASSERT_EQ(next.slot, old.slot);
  EXPECT_NE(next.nonce, old.nonce);
  gates.Open(next);
  EXPECT_FALSE(gates.IsOpen(old));
  // Whoever closes the old one late does the new one no harm.
  gates.Close(old);
  EXPECT_TRUE(gates.IsOpen(next));
  EXPECT_EQ(Seen(next), next.nonce);
}

TEST_F(GatesTest, NextTenantOpensTheOldOne_WithoutMitigation) {
  Gates gates = Map(/*fresh_nonces=*/false);
  const Gates::Gate old = gates.Allocate().value();
  gates.Open(old);
  gates.Free(old);
  EXPECT_FALSE(gates.IsOpen(old));
  const Gates::Gate next = gates.Allocate().value();
  ASSERT_EQ(next.slot, old.slot);
  gates.Open(next);
  EXPECT_TRUE(gates.IsOpen(old));
}

TEST_F(GatesTest, EachHasASlotOfItsOwnUntilAllAreTaken) {
  Gates gates = Map();
  std::set<uint32_t> slots;
  std::set<uint64_t> nonces;
  std::vector<Gates::Gate> all;
  for (uint32_t i = 0; i < kSlots; ++i) {
    all.push_back(gates.Allocate().value());
    EXPECT_LT(all.back().slot, kSlots);
    slots.insert(all.back().slot);
    nonces.insert(all.back().nonce);
  }
  EXPECT_EQ(slots.size(), kSlots);
  EXPECT_EQ(nonces.size(), kSlots);
  EXPECT_EQ(gates.used(), gates.slots());
  EXPECT_FALSE(gates.Allocate().has_value());
  gates.Free(all[7]);
  EXPECT_EQ(gates.Allocate().value().slot, all[7].slot);
}

TEST_F(GatesTest, CloseAllClosesAll) {
  Gates gates = Map();
  std::vector<Gates::Gate> all;
  for (int i = 0; i < 700; ++i) {
    all.push_back(gates.Allocate().value());
    if (i % 2 == 0) gates.Open(all.back());
  }
  gates.CloseAll();
  for (const Gates::Gate& gate : all) EXPECT_EQ(Seen(gate), 0u);
  EXPECT_EQ(gates.used(), 700u);
}

TEST_F(GatesTest, MoveTakesTheMappingAlong) {
  Gates gates = Map();
  const Gates::Gate gate = gates.Allocate().value();
  Gates moved = std::move(gates);
  moved.Open(gate);
  EXPECT_EQ(Seen(gate), gate.nonce);
  EXPECT_EQ(moved.used(), 1u);
}

TEST(GatesMapTest, RefusesWhatCannotBeMapped) {
  EXPECT_EQ(Gates::Map(UniqueFd(), kSlots, true).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace bpfgrant::broker

#include "daemon/loader/census.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sys/capability.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "proto/wire/message_socket.h"
#include "tests/catalog/catalog_fixture.h"
#include "tests/harness/kernel_objects.h"

namespace bpfgrant::daemon {
namespace {

constexpr std::chrono::seconds kPatience{20};

UniqueFd MakeMap() {
  return UniqueFd(
      bpf_map_create(BPF_MAP_TYPE_ARRAY, "census", 4, 8, 1, nullptr));
}

// A socket filter that uses `map` and lets nothing pass.
UniqueFd MakeProgram(const UniqueFd& map) {
  const std::array<bpf_insn, 4> instructions = {{
      {BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0, map.get()},
      {0, 0, 0, 0, 0},
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0},
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
  }};
  return UniqueFd(bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "census", "GPL",
                                instructions.data(), instructions.size(),
                                nullptr));
}

class CensusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    auto census = Census::Create();
    ASSERT_TRUE(census.ok()) << census.status();
    census_ = std::make_unique<Census>(*std::move(census));
  }
  Existing Take() {
    auto existing = census_->Take();
    EXPECT_TRUE(existing.ok()) << existing.status();
    return existing.ok() ? *std::move(existing) : Existing();
  }
  template <typename Exists>
  bool GoesAway(Exists exists) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (exists(Take())) {
      if (std::chrono::steady_clock::now() > until) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
  }
  bool MapGoesAway(uint32_t id) {
    return GoesAway([id](const Existing& all) { return all.HasMap(id); });
  }
  bool ProgramGoesAway(uint32_t id) {
    return GoesAway([id](const Existing& all) { return all.HasProgram(id); });
  }

  std::unique_ptr<Census> census_;
};

TEST_F(CensusTest, CountsWhatExistsAndNothingElse) {
  UniqueFd map = MakeMap();
  UniqueFd program = MakeProgram(map);
  const uint32_t map_id = test::IdOfMap(map.get()),
                 program_id = test::IdOfProgram(program.get());
  const Existing all = Take();
  EXPECT_TRUE(all.HasMap(map_id));
  EXPECT_TRUE(all.HasProgram(program_id));
  EXPECT_FALSE(all.HasMap(0));
  EXPECT_FALSE(all.HasProgram(INT32_MAX));
  EXPECT_TRUE(std::is_sorted(all.maps.begin(), all.maps.end()));
  EXPECT_TRUE(std::is_sorted(all.programs.begin(), all.programs.end()));
  // The program has its map as long as it lives.
  map.reset();
  EXPECT_TRUE(Take().HasMap(map_id));
  program.reset();
  EXPECT_TRUE(ProgramGoesAway(program_id));
  EXPECT_TRUE(MapGoesAway(map_id));
}

TEST_F(CensusTest, AnAttachmentKeepsAProgram) {
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  UniqueFd program = MakeProgram(MakeMap());
  const uint32_t id = test::IdOfProgram(program.get());
  const int number = program.get();
  ASSERT_EQ(setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_BPF, &number,
                       sizeof(number)),
            0);
  program.reset();
  EXPECT_TRUE(Take().HasProgram(id));
  socket.reset();
  EXPECT_TRUE(ProgramGoesAway(id));
}

// Sent to a socket that is in flight to itself: only the kernel's collector of
// such cycles can free it, which runs when any Unix socket goes.
TEST_F(CensusTest, AnFdInFlightKeepsAMapUntilItIsCollected) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd one(ends[0]), two(ends[1]);
  UniqueFd map = MakeMap();
  const uint32_t id = test::IdOfMap(map.get());
  const std::array<int, 3> cycle = {map.get(), one.get(), two.get()};
  ASSERT_TRUE(SendPacket(one.get(), "x", cycle).ok());
  map.reset();
  EXPECT_TRUE(Take().HasMap(id));
  one.reset();
  two.reset();
  EXPECT_TRUE(GoesAway([id](const Existing& all) {
    close(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    return all.HasMap(id);
  }));
}

// More than one read of the iterator brings.
TEST_F(CensusTest, MissesNoneOfMany) {
  std::vector<UniqueFd> maps;
  std::vector<uint32_t> ids;
  for (int i = 0; i < 9000; ++i) {
    maps.push_back(MakeMap());
    ASSERT_TRUE(maps.back().valid()) << i;
    ids.push_back(test::IdOfMap(maps.back().get()));
  }
  const Existing all = Take();
  EXPECT_TRUE(std::all_of(ids.begin(), ids.end(),
                          [&](uint32_t id) { return all.HasMap(id); }));
}

// Exits with 0 if the census works with the loader's two capabilities alone.
[[noreturn]] void TakeWithTwoCapabilities() {
  const std::array<cap_value_t, 2> kept = {CAP_BPF, CAP_PERFMON};
  const cap_t wanted = cap_init();
  for (const cap_flag_t set : {CAP_PERMITTED, CAP_EFFECTIVE}) {
    cap_set_flag(wanted, set, kept.size(), kept.data(), CAP_SET);
  }
  if (cap_set_proc(wanted) < 0) _exit(1);
  const auto census = Census::Create();
  if (!census.ok()) _exit(2);
  const UniqueFd map = MakeMap();
  const auto all = census->Take();
  _exit(all.ok() && all->HasMap(test::IdOfMap(map.get())) ? 0 : 3);
}

TEST_F(CensusTest, NeedsNoMoreThanTheLoaderHas) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) TakeWithTwoCapabilities();
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

}  // namespace
}  // namespace bpfgrant::daemon

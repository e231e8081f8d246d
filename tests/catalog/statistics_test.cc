// What the kernel tells of programs and ring buffers, against what it tells who
// holds them.

#include "daemon/loader/statistics.h"

#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <vector>

#include "daemon/loader/run_totals.h"
#include "tests/catalog/catalog_fixture.h"
#include "tests/harness/kernel_objects.h"

namespace bpfgrant::daemon {
namespace {

UniqueFd MakeProgram() {
  const std::array<bpf_insn, 2> instructions = {{
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, 0},
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
  }};
  return UniqueFd(bpf_prog_load(BPF_PROG_TYPE_SOCKET_FILTER, "statistics",
                                "GPL", instructions.data(), instructions.size(),
                                nullptr));
}

bpf_prog_info InfoOf(const UniqueFd& program) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  EXPECT_EQ(bpf_prog_get_info_by_fd(program.get(), &info, &size), 0);
  return info;
}

class StatisticsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    REQUIRE_BPF();
    auto statistics = Statistics::Create();
    ASSERT_TRUE(statistics.ok()) << statistics.status();
    statistics_ = std::make_unique<Statistics>(*std::move(statistics));
  }
  Activity Take() {
    auto activity = statistics_->Take();
    EXPECT_TRUE(activity.ok()) << activity.status();
    return activity.ok() ? *std::move(activity) : Activity();
  }

  std::unique_ptr<Statistics> statistics_;
};

// Sends so many packets through it.
void RunBySocket(const UniqueFd& program, int times) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
  const UniqueFd from(ends[0]), to(ends[1]);
  const int number = program.get();
  ASSERT_EQ(
      setsockopt(to.get(), SOL_SOCKET, SO_ATTACH_BPF, &number, sizeof(number)),
      0);
  for (int i = 0; i < times; ++i) EXPECT_EQ(send(from.get(), "x", 1, 0), 1);
}

TEST_F(StatisticsTest, CountsAsTheKernelTellsWhoHoldsAProgram) {
  const UniqueFd counting(bpf_enable_stats(BPF_STATS_RUN_TIME));
  ASSERT_TRUE(counting.valid());
  const UniqueFd program = MakeProgram(), other = MakeProgram();
  ASSERT_NO_FATAL_FAILURE(RunBySocket(program, 1000));
  const bpf_prog_info info = InfoOf(program);
  const Activity activity = Take();
  EXPECT_TRUE(activity.counting);
  const auto* found = activity.FindProgram(info.id);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->runs, 1000u);
  EXPECT_EQ(info.run_cnt, 1000u);
  EXPECT_EQ(found->run_ns, info.run_time_ns);
  EXPECT_EQ(found->misses, info.recursion_misses);
  const auto* idle = activity.FindProgram(InfoOf(other).id);
  ASSERT_NE(idle, nullptr);
  EXPECT_EQ(idle->runs, 0u);
  EXPECT_EQ(activity.FindProgram(0), nullptr);
}

TEST_F(StatisticsTest, SaysWhetherRunsAreCounted) {
  UniqueFd counting(bpf_enable_stats(BPF_STATS_RUN_TIME));
  ASSERT_TRUE(counting.valid());
  EXPECT_TRUE(Take().counting);
  counting.reset();
  // Unless the machine has it on for itself.
  const UniqueFd program = MakeProgram();
  ASSERT_NO_FATAL_FAILURE(RunBySocket(program, 1));
  EXPECT_EQ(Take().counting, InfoOf(program).run_cnt == 1);
}

TEST_F(StatisticsTest, TellsHowFullARingBufferIs) {
  const size_t page = static_cast<size_t>(getpagesize());
  const UniqueFd ring(bpf_map_create(BPF_MAP_TYPE_USER_RINGBUF, "ring", 0, 0,
                                     static_cast<uint32_t>(4 * page), nullptr));
  ASSERT_TRUE(ring.valid());
  const auto of_ring = [&] {
    const Activity activity = Take();
    const auto* found = activity.FindRingBuffer(test::IdOfMap(ring.get()));
    return found == nullptr ? bpfgrant_ring_buffer_statistics{} : *found;
  };
  EXPECT_EQ(of_ring().mask, 4 * page - 1);
  EXPECT_EQ(of_ring().type, uint32_t{BPF_MAP_TYPE_USER_RINGBUF});
  EXPECT_EQ(of_ring().producer, 0u);
  // The producer's position is who holds it to write.
  void* memory = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED,
                      ring.get(), static_cast<off_t>(page));
  ASSERT_NE(memory, MAP_FAILED);
  *static_cast<volatile uint64_t*>(memory) = 48;
  EXPECT_EQ(of_ring().producer, 48u);
  EXPECT_EQ(of_ring().consumer, 0u);
  munmap(memory, page);
}

// Exits with 0 if it works with the loader's two capabilities alone.
[[noreturn]] void TakeWithTwoCapabilities() {
  const std::array<cap_value_t, 2> kept = {CAP_BPF, CAP_PERFMON};
  const cap_t wanted = cap_init();
  for (const cap_flag_t set : {CAP_PERMITTED, CAP_EFFECTIVE}) {
    cap_set_flag(wanted, set, kept.size(), kept.data(), CAP_SET);
  }
  if (cap_set_proc(wanted) < 0) _exit(1);
  const auto statistics = Statistics::Create();
  if (!statistics.ok()) _exit(2);
  const UniqueFd program = MakeProgram();
  const auto activity = statistics->Take();
  _exit(activity.ok() && activity->FindProgram(InfoOf(program).id) ? 0 : 3);
}

TEST_F(StatisticsTest, NeedsNoMoreThanTheLoaderHas) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) TakeWithTwoCapabilities();
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << WEXITSTATUS(status);
}

// More than one read of the iterator brings, which may end within a record.
TEST_F(StatisticsTest, MissesNoneOfMany) {
  std::vector<UniqueFd> programs;
  for (int i = 0; i < 2000; ++i) {
    programs.push_back(MakeProgram());
    ASSERT_TRUE(programs.back().valid()) << i;
  }
  const Activity activity = Take();
  for (const UniqueFd& program : programs) {
    EXPECT_NE(activity.FindProgram(InfoOf(program).id), nullptr);
  }
}

Activity Ran(uint32_t id, uint64_t runs, uint64_t ns) {
  Activity activity;
  activity.programs.push_back({id, 0, runs, ns, 0});
  return activity;
}

TEST(RunTotalsTest, ATotalOutlivesItsInstances) {
  ObjectRegister objects;
  RunTotals totals;
  objects.Enter({1, 10}, "sample", {{true, 5, "sample"}}, {});
  StatisticsMessage first = totals.Report(Ran(5, 100, 1000), objects, {});
  ASSERT_EQ(first.program_size(), 1);
  EXPECT_EQ(first.program(0).program(), "sample");
  EXPECT_EQ(first.program(0).count().runs(), 100u);
  EXPECT_EQ(first.program(0).instances(), 1u);
  ASSERT_EQ(first.instance_size(), 1);
  EXPECT_EQ(first.instance(0).gate_nonce(), 10u);
  // A second one, and then neither.
  objects.Enter({2, 20}, "sample", {{true, 6, "sample"}}, {});
  Activity both = Ran(5, 150, 1500);
  both.programs.push_back({6, 0, 7, 70, 0});
  EXPECT_EQ(totals.Report(both, objects, {}).program(0).count().runs(), 157u);
  const StatisticsMessage last = totals.Report({}, objects, {});
  EXPECT_EQ(last.program(0).count().runs(), 157u);
  EXPECT_EQ(last.program(0).count().run_ns(), 1570u);
  EXPECT_EQ(last.program(0).instances(), 0u);
  EXPECT_EQ(last.instance_size(), 0);
}

// An id comes back after 2^31 others, or a count begins anew.
TEST(RunTotalsTest, ATotalNeverBecomesLess) {
  ObjectRegister objects;
  RunTotals totals;
  objects.Enter({1, 10}, "sample", {{true, 5, "sample"}}, {});
  totals.Report(Ran(5, 100, 1000), objects, {});
  EXPECT_EQ(totals.Report(Ran(5, 3, 30), objects, {}).program(0).count().runs(),
            103u);
}

TEST(RunTotalsTest, ASharedProgramHasNoGrantOfItsOwn) {
  RunTotals totals;
  Activity activity = Ran(5, 100, 1000);
  activity.programs.push_back({6, 0, 1, 10, 0});
  const StatisticsMessage message =
      totals.Report(activity, {}, {{"traced", {5, 6}}});
  ASSERT_EQ(message.program_size(), 1);
  EXPECT_TRUE(message.program(0).whole_machine());
  EXPECT_EQ(message.program(0).count().runs(), 101u);
  EXPECT_EQ(message.instance_size(), 0);
}

// Whoever maps a ring buffer writes one of its positions.
TEST(RunTotalsTest, PositionsThatCannotBeAreAFullBuffer) {
  ObjectRegister objects;
  RunTotals totals;
  objects.Enter({1, 10}, "sample", {{false, 8, "samples"}}, {});
  Activity activity;
  activity.ring_buffers.push_back(
      {8, BPF_MAP_TYPE_RINGBUF, 4095, /*consumer=*/5000, /*producer=*/48});
  const StatisticsMessage message = totals.Report(activity, objects, {});
  ASSERT_EQ(message.instance_size(), 1);
  EXPECT_FALSE(message.instance(0).has_count());
  EXPECT_EQ(message.instance(0).ring_buffer(0).used_bytes(), 4096u);
  EXPECT_EQ(message.instance(0).ring_buffer(0).map(), "samples");
}

}  // namespace
}  // namespace bpfgrant::daemon

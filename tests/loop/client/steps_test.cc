// What a loop does, step by step: the same in the kernel and in the process.

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tests/loop/client/probe_test.h"

namespace bpfgrant::test {
namespace {

class StepsTest : public ProbeTest {};
BPFGRANT_PLACES(StepsTest);

TEST_P(StepsTest, StateLivesAcrossStepsAndStops) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 10));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(memory().seen, 10u);
  EXPECT_EQ(memory().steps, 11u);

  // It goes on counting where it was.
  memory().count = 15;
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(memory().seen, 15u);
  EXPECT_EQ(memory().prepared, 15u);
  EXPECT_EQ(memory().steps, 17u);
}

TEST_P(StepsTest, TheStatusPageCounts) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 10));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(loop().status().steps, 11u);
  EXPECT_EQ(loop().status().completions, 10u);
  EXPECT_EQ(loop().status().requests, 10u);
  EXPECT_EQ(loop().status().enters, 1u);
  EXPECT_EQ(loop().status().stop, static_cast<uint32_t>(BPFGRANT_STOP_DONE));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(loop().status().enters, 2u);
}

TEST_P(StepsTest, OneCallOfTheKernelForAll) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_COUNT, 10));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(loop().enters(), InKernel() ? 1u : 10u);
}

TEST_P(StepsTest, AShortSubmissionSaysHowShort) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_SHORT));
  if (InKernel()) {
    const auto stop = Run();
    ASSERT_THAT(stop, StopsWith(BPFGRANT_STOP_SUBMIT));
    EXPECT_EQ(stop->detail, PROBE_SQ_ENTRIES);
    return;
  }
  // The ring is not to be found for a while.
  int& ring = loop().native()->ring.ring_fd;
  const int number = std::exchange(ring, 1 << 20);
  const auto stop = Run();
  ring = number;
  ASSERT_THAT(stop, StopsWith(BPFGRANT_STOP_SUBMIT));
  EXPECT_TRUE(stop->detail == -EBADF || stop->detail == -EINVAL)
      << stop->detail;
}

TEST_P(StepsTest, WaitsForSeveral) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_TOGETHER));
  for (unsigned i = 0; i < PROBE_FDS; ++i) {
    ASSERT_NO_FATAL_FAILURE(MakeStream(i));
  }
  std::thread writer([this] {
    for (unsigned i = 0; i < PROBE_FDS; ++i) {
      std::this_thread::sleep_for(kMoment / 4);
      Write(i, "ab");
    }
  });
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  writer.join();
  EXPECT_EQ(memory().seen, uint64_t{PROBE_FDS});
  EXPECT_EQ(memory().result, 2);
  // It may be called early, but not for each completion.
  EXPECT_LE(memory().steps, 3u);
}

TEST_P(StepsTest, LinkedRequestsRunInTheirOrder) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_LINKED, 5));
  ASSERT_NO_FATAL_FAILURE(MakeStream(0));
  memory().fds[1] = writers_[0].get();
  std::memcpy(memory().bytes[1], "hello", 5);
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(memory().seen, 2u);
  EXPECT_EQ(std::string(memory().bytes[0], 5), "hello");
}

TEST_P(StepsTest, CompletionsFindTheirCallback) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_DISPATCH));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  for (uint64_t i = 0; i < 8; ++i) {
    EXPECT_EQ(memory().sums[i], (uint64_t{2} << 40) + i + (i + 8)) << i;
  }
}

// The odd callbacks are the process's: the loop stops before their completions,
// and goes on where they were taken.
TEST_P(StepsTest, EachCallbackRunsInTheLoopOrInTheProcess) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_CHOOSE));
  std::array<uint64_t, 8> here{};
  auto stop = Run();
  for (; stop.ok() && stop->why == BPFGRANT_STOP_PASSED; stop = Run()) {
    const io_uring_cqe* cqe = loop().PeekCompletion();
    ASSERT_NE(cqe, nullptr);
    here[bpfgrant_callback(cqe) % 8] += bpfgrant_value(cqe);
    loop().SeenCompletion();
  }
  EXPECT_THAT(stop, StopsWith(BPFGRANT_STOP_DONE));
  for (uint64_t i = 0; i < 8; ++i) {
    const uint64_t all = (uint64_t{2} << 40) + i + (i + 8);
    EXPECT_EQ(memory().sums[i], i % 2 == 0 ? all : 0) << i;
    EXPECT_EQ(here[i], i % 2 == 0 ? 0 : all) << i;
  }
}

TEST_P(StepsTest, PassesCompletionsOnInItsMemory) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_PASS, 5));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  const bpfgrant_cqe_queue& passed = memory().passed;
  ASSERT_EQ(passed.tail, 5u);
  for (uint32_t i = 0; i < 5; ++i) {
    EXPECT_EQ(passed.cqes[i].user_data, 100u + i);
    EXPECT_EQ(passed.cqes[i].res, 0);
  }
  EXPECT_EQ(loop().PeekCompletion(), nullptr);
}

TEST_P(StepsTest, LeavesCompletionsToTheProcess) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_LEAVE, 3));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_PASSED));
  // A wake among them is not one of them.
  ASSERT_TRUE(loop().Wake(7).ok());
  for (uint32_t i = 0; i < 3; ++i) {
    const io_uring_cqe* cqe = loop().PeekCompletion();
    ASSERT_NE(cqe, nullptr);
    EXPECT_EQ(cqe->user_data, 100u + i);
    loop().SeenCompletion();
  }
  EXPECT_EQ(loop().PeekCompletion(), nullptr);
  loop().SeenCompletion();
  EXPECT_THAT(Run(), WokenWith(7));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
}

TEST_P(StepsTest, AnAuthorsErrorIsTheDetail) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_FAIL, EPERM));
  const auto stop = Run();
  EXPECT_THAT(stop, StopsWith(BPFGRANT_STOP_ERROR));
  EXPECT_EQ(stop->detail, -EPERM);
  EXPECT_EQ(loop().status().detail, -EPERM);
  EXPECT_EQ(Loop::Describe(*stop), "the loop failed: Operation not permitted");
  // And again.
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_ERROR));
}

TEST_P(StepsTest, AFullSubmissionQueueSaysSo) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_FILL));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(memory().prepared, uint64_t{PROBE_SQ_ENTRIES});
  EXPECT_EQ(memory().seen, uint64_t{PROBE_SQ_ENTRIES});
  EXPECT_EQ(memory().spoilt, 0u);
}

TEST_P(StepsTest, AStepMaySubmitByItself) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_SUBMIT));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(memory().result, 3);
  EXPECT_EQ(memory().seen, 5u);
  EXPECT_EQ(memory().spoilt, 0u);
  EXPECT_EQ(loop().status().requests, 5u);
}

TEST_P(StepsTest, WhatAStopLeavesUnsubmittedIsDropped) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_DROP));
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  }
  EXPECT_EQ(memory().prepared, 3u);
  EXPECT_EQ(memory().spoilt, 0u);
  EXPECT_EQ(loop().status().requests, 0u);
}

TEST_P(StepsTest, TheStepBudgetBringsItBack) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_SPIN, 10'000));
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(Run({.through_budget = false}),
                StopsWith(BPFGRANT_STOP_BUDGET));
    EXPECT_EQ(memory().steps, 4096u * (i + 1));
  }
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
}

TEST_P(StepsTest, ItEntersAgainByItself) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Make(PROBE_SPIN, 10'000));
  EXPECT_THAT(Run(), StopsWith(BPFGRANT_STOP_DONE));
  EXPECT_EQ(memory().steps, 10'001u);
  EXPECT_EQ(loop().status().enters, 3u);
}

}  // namespace
}  // namespace bpfgrant::test

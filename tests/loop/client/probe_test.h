// Tests that run the loop `probe` in both places.

#ifndef TESTS_LOOP_CLIENT_PROBE_TEST_H_
#define TESTS_LOOP_CLIENT_PROBE_TEST_H_

#include <array>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "client/bpfgrant/loop.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"
#include "tests/loop/client/probe.h"
#include "tests/loop/place.h"

BPFGRANT_NATIVE_LOOP(probe);

namespace bpfgrant::test {

inline constexpr std::chrono::milliseconds kMoment{100};
// How long a test waits for what must come.
inline constexpr std::chrono::seconds kPatience{20};

using Cause = Loop::Stop::Cause;

// What stopped it, as "loop 1 0", "interrupted", ...
MATCHER_P(StopsWith, why, "") {
  if (!arg.ok()) {
    *result_listener << arg.status();
    return false;
  }
  *result_listener << Loop::Describe(*arg);
  return arg->cause == Cause::kLoop && arg->why == static_cast<uint32_t>(why);
}
MATCHER_P(WokenWith, detail, "") {
  if (!arg.ok()) {
    *result_listener << arg.status();
    return false;
  }
  *result_listener << Loop::Describe(*arg);
  return arg->cause == Cause::kLoop && arg->why == BPFGRANT_STOP_WOKEN &&
         arg->detail == detail;
}
MATCHER_P(StopsBy, cause, "") {
  if (!arg.ok()) {
    *result_listener << arg.status();
    return false;
  }
  *result_listener << Loop::Describe(*arg);
  return arg->cause == cause;
}

class ProbeTest : public PlaceTest {
 protected:
  ProbeTest() : PlaceTest("probe") {}

  // What every test of the probe begins with.
  Loop::Options Options() const;
  // Makes the loop for `job`, in place. Use with ASSERT_NO_FATAL_FAILURE.
  void Make(probe_job job, uint32_t count = 0);
  // A stream whose read end is `memory().fds[i]`. Not a pipe: older kernels
  // cannot read those without a worker thread.
  void MakeStream(unsigned i);
  void Write(unsigned stream, const std::string& text);

  Loop& loop() { return *loop_; }
  probe_memory& memory() { return *loop_->memory_as<probe_memory>(); }
  absl::StatusOr<Loop::Stop> Run(Loop::RunOptions options = {}) {
    return loop_->Run(options);
  }
  // With a deadline so far from now.
  absl::StatusOr<Loop::Stop> RunFor(std::chrono::milliseconds time) {
    return Run({.deadline = std::chrono::steady_clock::now() + time});
  }

  std::optional<Loop> loop_;
  std::array<UniqueFd, PROBE_FDS> readers_, writers_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_LOOP_CLIENT_PROBE_TEST_H_

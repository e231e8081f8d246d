#include "tests/loop/client/probe_test.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace bpfgrant::test {
namespace {

// The catalog of the daemon that PlaceTest starts.
[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", PROBE_CATALOG, /*replace=*/1);

}  // namespace

Loop::Options ProbeTest::Options() const {
  return {.program = "probe",
          .interface = "probe/1",
          .native = &bpfgrant_native_probe,
          .sq_entries = PROBE_SQ_ENTRIES,
          .cq_entries = PROBE_CQ_ENTRIES,
          .memory_bytes = sizeof(probe_memory),
          .step_budget = 4096};
}

void ProbeTest::Make(probe_job job, uint32_t count) {
  auto loop = Create(Options());
  ASSERT_TRUE(loop.ok()) << loop.status();
  loop_.emplace(*std::move(loop));
  ASSERT_GE(loop_->memory().size(), sizeof(probe_memory));
  memory().job = job;
  memory().count = count;
  memory().bytes_at = reinterpret_cast<uintptr_t>(memory().bytes);
}

void ProbeTest::MakeStream(unsigned i) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  readers_[i].reset(ends[0]);
  writers_[i].reset(ends[1]);
  memory().fds[i] = ends[0];
}

void ProbeTest::Write(unsigned stream, const std::string& text) {
  EXPECT_EQ(write(writers_[stream].get(), text.data(), text.size()),
            static_cast<ssize_t>(text.size()));
}

}  // namespace bpfgrant::test

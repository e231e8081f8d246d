// The rights that the manifests of the catalog's programs give are enough for a
// holder without privilege, and are no more.

#include <bpf/bpf.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "gtest/gtest.h"
#include "tests/harness/kernel_objects.h"
#include "tests/harness/skip.h"
#include "tests/harness/unprivileged.h"
#include "tests/privileged/loaded_program.h"

namespace bpfgrant::test {
namespace {

using ProgramsTest = PrivilegedTest;

UniqueFd Narrow(int map, uint32_t flags) {
  LIBBPF_OPTS(bpf_get_fd_by_id_opts, options, .open_flags = flags);
  UniqueFd narrow(bpf_map_get_fd_by_id_opts(IdOfMap(map), &options));
  EXPECT_TRUE(narrow.valid()) << std::strerror(errno);
  return narrow;
}

TEST_F(ProgramsTest, SteerWithTheRightsOfItsManifest) {
  const auto steer = LoadedProgram::Load("reuseport_steer");
  ASSERT_NE(steer, nullptr);
  const UniqueFd sockets = Narrow(steer->map("sockets"), BPF_F_WRONLY);
  const UniqueFd counters = Narrow(steer->map("counters"), BPF_F_RDONLY);
  UnprivilegedOptions options;
  options.fds = {{steer->program(), 10},
                 {steer->map("config"), 11},
                 {sockets.get(), 12},
                 {counters.get(), 13}};
  const Outcome outcome = RunUnprivileged(CLIENT_PATH, {}, options);
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
}

// What the client above must notice: rights that are wider.
TEST_F(ProgramsTest, SteerWithFullRights) {
  const auto steer = LoadedProgram::Load("reuseport_steer");
  ASSERT_NE(steer, nullptr);
  UnprivilegedOptions options;
  options.fds = {{steer->program(), 10},
                 {steer->map("config"), 11},
                 {steer->map("sockets"), 12},
                 {steer->map("counters"), 13}};
  const Outcome outcome = RunUnprivileged(CLIENT_PATH, {}, options);
  EXPECT_EQ(outcome.exit_code, 1) << outcome.Describe();
  EXPECT_NE(outcome.output.find("the counters cannot be written"),
            std::string::npos);
}

}  // namespace
}  // namespace bpfgrant::test

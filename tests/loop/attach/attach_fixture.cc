#include "tests/loop/attach/attach_fixture.h"

#include <sstream>

#include "absl/strings/str_cat.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/probe_privilege.h"
#include "tests/harness/skip.h"
#include "tests/loop/place.h"

namespace bpfgrant::test {

void AttachTest::Begin(const std::vector<std::string>& without, bool store) {
  BPFGRANT_REQUIRE_KERNEL(KernelHasLoops(),
                          "io_uring loops (struct io_uring_bpf_ops)");
  DaemonOptions options;
  options.build_catalog = false;
  options.without = without;
  options.store = store;
  ASSERT_NO_FATAL_FAILURE(Start(options));
  AddProgram("puppet");
}

void AttachTest::AddProgram(const std::string& name) {
  const std::string folder = ATTACH_CATALOG;
  daemon().AddCatalogEntry(name, ReadFile(folder + "/" + name + ".manifest"),
                           folder + "/" + name + ".bpf.o");
  ASSERT_TRUE(daemon().Reload().ok());
  before_ = Rest();
}

void AttachTest::TearDown() {
  if (!IsSkipped() && !HasFatalFailure() && !leave_) {
    ExpectRestsAs(before_);
  }
  ClientTest::TearDown();
}

std::string AttachTest::MakeRing(Nobody& client, const std::string& how) {
  const std::vector<std::string> made = client.Do("ring " + how);
  if (made.size() != 2) return "-1";
  EXPECT_EQ(client.Ask("ring-memory " + made[0]), "ok 0");
  return made[1];
}

void AttachTest::MakeLoop(Nobody& client, int mode, int count) {
  Connect(client);
  const std::string fd = MakeRing(client);
  EXPECT_EQ(client.Ask(absl::StrCat("job 0 ", mode, " ", count)), "ok");
  EXPECT_THAT(client.Ask("attach-ring puppet " + fd),
              ::testing::StartsWith("ok"));
  EXPECT_EQ(client.Ask("enable 0"), "ok 0");
}

}  // namespace bpfgrant::test

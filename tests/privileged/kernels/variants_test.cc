// A client without privilege and programs that differ from kernel to kernel: it
// learns beforehand what there is, and does without what is not there.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <string>

#include "client/bpfgrant/mapped_array.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/as_nobody.h"
#include "tests/privileged/kernels/ladder.h"

namespace bpfgrant::test {
namespace {

// The catalog of the daemon that NobodyTest starts.
[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", TEST_CATALOG, /*replace=*/1);

// Whether a datagram comes through a socket with that filter on it.
bool Passes(int filter) {
  int ends[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends), 0);
  const UniqueFd from(ends[0]), to(ends[1]);
  EXPECT_EQ(
      setsockopt(to.get(), SOL_SOCKET, SO_ATTACH_BPF, &filter, sizeof(filter)),
      0);
  char byte = 1;
  (void)!write(from.get(), &byte, 1);
  return read(to.get(), &byte, 1) == 1;
}

class LadderTest : public NobodyTest {
 protected:
  LadderTest() : NobodyTest("ladder") {}
};

TEST_F(LadderTest, TheVariantIsToldBeforehandAndIsTheOneThatRuns) {
  BPFGRANT_AS_NOBODY();
  const auto offer = connection().Probe(
      {.program = "ladder", .interface = "ladder/1", .handles = {"page"}});
  ASSERT_TRUE(offer.ok()) << offer.status();
  const auto grant = connection().Acquire(
      {.program = "ladder",
       .interface = "ladder/1",
       .interface_hash = offer->description.interface_hash()});
  ASSERT_TRUE(grant.ok()) << grant.status();
  const auto page = MappedArray::Map(**grant->Find("page"));
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_TRUE(Passes(grant->program_fd()));
  const std::map<std::string, __u32> rungs = {{"plain", LADDER_PLAIN},
                                              {"newish", LADDER_NEWISH},
                                              {"newer", LADDER_NEWER},
                                              {"newest", LADDER_NEWEST}};
  ASSERT_TRUE(rungs.contains(offer->variant)) << offer->variant;
  EXPECT_EQ(page->At<ladder_page>(0)->rung, rungs.at(offer->variant));
}

TEST_F(LadderTest, WhatIsNotThereIsToldBeforehand) {
  BPFGRANT_AS_NOBODY();
  const auto reason = [this](const Connection::AcquireOptions& options) {
    return ReasonOf(connection().Probe(options).status());
  };
  EXPECT_EQ(reason({.program = "absent", .interface = "absent/1"}),
            v1::REASON_UNKNOWN_PROGRAM);
  EXPECT_EQ(reason({.program = "ladder", .interface = "ladder/2"}),
            v1::REASON_INTERFACE_MISMATCH);
  EXPECT_EQ(reason({.program = "ladder",
                    .interface = "ladder/1",
                    .interface_hash = std::string(64, '0')}),
            v1::REASON_INTERFACE_MISMATCH);
  EXPECT_EQ(reason({.program = "ladder",
                    .interface = "ladder/1",
                    .handles = {"page", "book"}}),
            v1::REASON_UNKNOWN_HANDLE);
}

class SummitTest : public NobodyTest {
 protected:
  SummitTest() : NobodyTest("summit") {}

  // What the program is for: in the kernel where that has it, else here.
  bool SameText() {
    const Connection::AcquireOptions wanted = {.program = "summit",
                                               .interface = "summit/1"};
    const auto offer = connection().Probe(wanted);
    if (offer.ok()) {
      const auto grant = connection().Acquire(wanted);
      EXPECT_TRUE(grant.ok()) << grant.status();
      return grant.ok() && Passes(grant->program_fd());
    }
    EXPECT_EQ(ReasonOf(offer.status()), v1::REASON_KERNEL_TOO_OLD);
    EXPECT_THAT(std::string(offer.status().message()),
                ::testing::HasSubstr("no function 'bpf_strncasecmp'"));
    EXPECT_EQ(ReasonOf(connection().Acquire(wanted).status()),
              v1::REASON_PROGRAM_UNAVAILABLE);
    return strncasecmp("summit", "SUMMIT", 6) == 0;
  }
};

TEST_F(SummitTest, IsDoneWithoutWhereTheKernelHasItNot) {
  BPFGRANT_AS_NOBODY();
  EXPECT_TRUE(SameText());
}

}  // namespace
}  // namespace bpfgrant::test

// The table of what a loop may do: complete, with grounds, and against the
// kernel that runs this.

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "bpfgrant/v1/manifest.pb.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_operations.h"

namespace bpfgrant::daemon {
namespace {

TEST(LoopOperationsTest, EachNumberHasOneRowWithGrounds) {
  int expected = 0;
  for (const LoopOperation& operation : LoopOperations()) {
    EXPECT_EQ(operation.number, expected++) << operation.name;
    EXPECT_FALSE(operation.grounds.empty()) << operation.name;
    EXPECT_EQ(FindLoopOperation(operation.name), &operation);
  }
}

TEST(LoopOperationsTest, WhatReachesSetsockoptIsNeverAllowed) {
  for (const char* name :
       {"URING_CMD", "URING_CMD128", "SENDMSG", "SENDMSG_ZC"}) {
    const LoopOperation* operation = FindLoopOperation(name);
    ASSERT_NE(operation, nullptr) << name;
    EXPECT_FALSE(operation->allowed) << name;
  }
}

TEST(LoopOperationsTest, NoRegisterCallUndoesTheRestrictions) {
  // IORING_REGISTER_PERSONALITY, RESTRICTIONS, CLONE_BUFFERS, RESIZE_RINGS and
  // MEM_REGION.
  const std::set<int> never = {9, 11, 30, 33, 34};
  for (const char* name :
       {"PERSONALITY", "RESTRICTIONS", "CLONE_BUFFERS", "RESIZE_RINGS",
        "MEM_REGION", "USE_REGISTERED_RING", "RING_FDS"}) {
    EXPECT_EQ(FindRegisterCall(name), nullptr) << name;
  }
  for (const uint8_t call : AlwaysAllowedRegisterCalls()) {
    EXPECT_FALSE(never.contains(call));
  }
}

TEST(LoopRightsTest, AreTheManifestsAndWhatEveryRingNeeds) {
  v1::Manifest::Loop loop;
  loop.add_opcode("READ");
  loop.add_opcode("SEND");
  loop.add_sqe_flag("IO_LINK");
  loop.add_sqe_flag("FIXED_FILE");
  loop.add_register_call("BUFFERS");
  loop.add_register_call("EVENTFD");
  const LoopRights rights = RightsOf(loop);
  EXPECT_EQ(rights.operations, (std::vector<uint8_t>{22, 26}));
  EXPECT_EQ(rights.request_flags, 1 << 2 | 1 << 0);
  EXPECT_EQ(rights.register_calls, (std::vector<uint8_t>{4, 5, 12, 0}));
}

}  // namespace
}  // namespace bpfgrant::daemon

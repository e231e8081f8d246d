#include "daemon/loader/object_register.h"

#include <gtest/gtest.h>

#include <vector>

namespace bpfgrant::daemon {
namespace {

struct Asked {
  uint32_t slot;
  uint64_t nonce;
  bool session_maps = false;
};

LookRequest About(const std::vector<Asked>& all) {
  LookRequest request;
  for (const Asked& asked : all) {
    LookRequest::Instance& instance = *request.add_instance();
    instance.set_gate_slot(asked.slot);
    instance.set_gate_nonce(asked.nonce);
    instance.set_session_maps(asked.session_maps);
  }
  return request;
}

TEST(ObjectRegisterTest, NamesWhatIsLeftAndForgetsWhatIsNot) {
  ObjectRegister objects;
  objects.Enter({1, 10}, "sample", {{true, 5, "filter"}, {false, 6, "samples"}},
                {});
  objects.Enter({2, 20}, "sample", {{true, 7, "filter"}, {false, 8, "samples"}},
                {});
  const LookReply reply = objects.Look(About({{2, 20}, {1, 10}}),
                                       {.maps = {6}, .programs = {6, 8}});
  ASSERT_EQ(reply.held_size(), 1);
  EXPECT_EQ(reply.held(0).index(), 1u);
  EXPECT_EQ(reply.held(0).object(), "map 6 (samples)");
  EXPECT_EQ(objects.size(), 1u);
}

// The same number of a map and of a program are two things.
TEST(ObjectRegisterTest, TellsProgramsFromMaps) {
  ObjectRegister objects;
  objects.Enter({1, 10}, "sample", {{true, 5, "filter"}}, {});
  EXPECT_EQ(objects.Look(About({{1, 10}}), {.programs = {5}}).held(0).object(),
            "program 5 (filter)");
  EXPECT_EQ(objects.Look(About({{1, 10}}), {.maps = {5}}).held_size(), 0);
}

TEST(ObjectRegisterTest, SessionMapsAreAskedForByThemselves) {
  ObjectRegister objects;
  objects.Enter({1, 10}, "sample", {{true, 5, "filter"}},
                {{false, 9, "shared"}});
  const Existing left{.maps = {9}};
  EXPECT_EQ(objects.Look(About({{1, 10}}), left).held_size(), 0);
  EXPECT_EQ(objects.size(), 1u);
  EXPECT_EQ(objects.Look(About({{1, 10, true}}), left).held_size(), 1);
  EXPECT_EQ(objects.Look(About({{1, 10, true}}), {}).held_size(), 0);
  EXPECT_EQ(objects.size(), 0u);
}

TEST(ObjectRegisterTest, OfAGateThatNobodyHasNothingIsLeft) {
  ObjectRegister objects;
  objects.Enter({1, 10}, "sample", {{true, 5, "filter"}}, {});
  const Existing left{.programs = {5}};
  EXPECT_EQ(objects.Look(About({{1, 11}, {2, 10}}), left).held_size(), 0);
  EXPECT_EQ(objects.size(), 1u);
}

}  // namespace
}  // namespace bpfgrant::daemon

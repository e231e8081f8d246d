// Which unit a cgroup's path means, and which it only seems to.

#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policy/cgroup.h"
#include "policy/glob.h"

namespace bpfgrant::policy {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

struct Case {
  std::string_view cgroup;
  std::string_view unit;
  std::string_view managed;
};

TEST(LocateTest, TheUnitIsTheSystemManagers) {
  const Case cases[] = {
      {"/system.slice/nginx.service", "nginx.service",
       "/system.slice/nginx.service"},
      {"/init.scope", "init.scope", "/init.scope"},
      {"/system.slice/system-getty.slice/getty@tty1.service",
       "getty@tty1.service",
       "/system.slice/system-getty.slice/getty@tty1.service"},
      // What a service makes below itself is still that service.
      {"/system.slice/nginx.service/worker", "nginx.service",
       "/system.slice/nginx.service"},
      // A user manager's.
      {"/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service",
       "user@1000.service", "/user.slice/user-1000.slice/user@1000.service"},
      {"/user.slice/user-1000.slice/session-3.scope", "session-3.scope",
       "/user.slice/user-1000.slice/session-3.scope"},
      // A container's.
      {"/machine.slice/machine-web.scope/payload/system.slice/nginx.service",
       "machine-web.scope", "/machine.slice/machine-web.scope"},
      {"/system.slice/docker-0123.scope/system.slice/nginx.service",
       "docker-0123.scope", "/system.slice/docker-0123.scope"},
      // A directory that is neither slice nor unit ends it.
      {"/docker/0123/system.slice/nginx.service", "", ""},
      {"/system.slice/docker/nginx.service", "", "/system.slice"},
      {"/system.slice", "", "/system.slice"},
      {"/", "", ""},
      {"", "", ""},
      {"nginx.service", "", ""},
      // Outside the daemon's cgroup namespace.
      {"/../nginx.service", "", ""},
      // Removed from under its processes.
      {"/system.slice/nginx.service (deleted)", "", "/system.slice"},
      // systemd's escape; only one of it.
      {"/system.slice/_nginx.service", "nginx.service",
       "/system.slice/_nginx.service"},
      {"/system.slice/__nginx.service", "_nginx.service",
       "/system.slice/__nginx.service"},
      {"/system.slice/dbus-\\x2dfoo.service", "dbus-\\x2dfoo.service",
       "/system.slice/dbus-\\x2dfoo.service"},
      {"/system.slice/nginx\\x2eservice", "", "/system.slice"},
      // Names that no unit has.
      {"/system.slice/.service", "", "/system.slice"},
      {"/system.slice/getty@.service", "", "/system.slice"},
      {"/system.slice/@x.service", "", "/system.slice"},
      {"/system.slice/a b.service", "", "/system.slice"},
      {"/system.slice//nginx.service", "", "/system.slice"},
      {"/system.slice/nginx.Service", "", "/system.slice"},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.cgroup);
    const Location location = Locate(each.cgroup);
    EXPECT_EQ(location.cgroup, each.cgroup);
    EXPECT_EQ(location.unit, each.unit);
    EXPECT_EQ(location.managed(), each.managed);
  }
}

TEST(LocateTest, SlicesAreThoseAtTheBeginning) {
  EXPECT_THAT(Locate("/a.slice/a-b.slice/x.service/c.slice/y.service").slices,
              ElementsAre("a.slice", "a-b.slice"));
  EXPECT_THAT(Locate("/x.service").slices, IsEmpty());
  EXPECT_THAT(Locate("/x/a.slice").slices, IsEmpty());
}

TEST(LocateTest, WithinIsByWholeNames) {
  EXPECT_TRUE(IsWithin("/a/b", "/a"));
  EXPECT_TRUE(IsWithin("/a", "/a"));
  EXPECT_FALSE(IsWithin("/ab", "/a"));
  EXPECT_FALSE(IsWithin("/", "/a"));
}

TEST(GlobTest, StarAndQuestionMarkAloneAreSpecial) {
  EXPECT_TRUE(GlobMatches("*", ""));
  EXPECT_TRUE(GlobMatches("a*c", "abcbc"));
  EXPECT_TRUE(GlobMatches("a*b*c", "a__b__b__c"));
  EXPECT_TRUE(GlobMatches("getty@*.service", "getty@tty1.service"));
  EXPECT_TRUE(GlobMatches("a?c", "abc"));
  EXPECT_TRUE(GlobMatches("a**", "a"));
  EXPECT_TRUE(GlobMatches("a\\x2d*", "a\\x2db"));
  EXPECT_FALSE(GlobMatches("a?c", "ac"));
  EXPECT_FALSE(GlobMatches("a*c", "acb"));
  EXPECT_FALSE(GlobMatches("", "a"));
  EXPECT_FALSE(GlobMatches("[ab]", "a"));
  EXPECT_TRUE(GlobMatches("[ab]", "[ab]"));
}

// A pattern with many stars is where a careless matcher takes for ever.
TEST(GlobTest, ManyStarsTakeNoTime) {
  std::string pattern;
  for (int i = 0; i < 60; ++i) pattern += "a*";
  EXPECT_FALSE(GlobMatches(pattern + "b", std::string(4000, 'a')));
}

}  // namespace
}  // namespace bpfgrant::policy

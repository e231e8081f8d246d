// Whether a unit, a slice or a cgroup that a rule names is the one meant: the
// system manager's, and nothing that a user or a container calls so.

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/privileged/cgroup_fixture.h"

namespace bpfgrant::test {
namespace {

constexpr char kGranted[] = "ok";
constexpr char kDenied[] = "refused denied-by-default";

class UnitTest : public CgroupTest {
 protected:
  // What a client of nobody's that runs in `path` gets.
  std::string AskedFrom(const std::string& path) {
    client_.emplace();
    tree_.Enter(Named(path), client_->pid());
    Connect(*client_);
    return client_->Ask("acquire packet_sampler program").substr(0, 25);
  }
  void ExpectGranted(const std::string& path) {
    EXPECT_EQ(AskedFrom(path).substr(0, 2), kGranted) << path;
  }
  void ExpectDenied(const std::string& path) {
    EXPECT_EQ(AskedFrom(path), kDenied) << path;
  }
  // Of nobody, whose manager may do below it as it likes.
  std::string MakeUserManagersUnit() {
    const std::string manager =
        Named("/NAME.slice/NAME-65534.slice/user@65534.service");
    tree_.Make(manager);
    tree_.Give(manager, kNobody);
    tree_.MakeAs(kNobody, manager + "/app.slice");
    const std::string unit = manager + Named("/app.slice/NAME.service");
    tree_.MakeAs(kNobody, unit);
    return unit;
  }
  std::string MakeContainersUnit() {
    const std::string container = Named("/NAME.slice/NAME-c.scope");
    const std::string unit = container + Named("/system.slice/NAME.service");
    tree_.Make(unit);
    return unit;
  }
  // In a slice that was given to nobody whole.
  std::string MakeUsersDirectory() {
    tree_.Make(Named("/NAME.slice/NAME-own.slice"));
    tree_.Give(Named("/NAME.slice/NAME-own.slice"), kNobody);
    const std::string unit = Named("/NAME.slice/NAME-own.slice/NAME.service");
    tree_.MakeAs(kNobody, unit);
    return unit;
  }

  std::optional<Nobody> client_;
};

TEST_F(UnitTest, TheSystemManagersUnitMatches) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'NAME.service'"));
  tree_.Make(Named("/NAME.slice/NAME.service/worker"));
  // Its own, to do below it what it wants (Delegate=).
  tree_.Give(Named("/NAME.slice/NAME.service"), kNobody);
  ExpectGranted("/NAME.slice/NAME.service/worker");
  const auto grants = administrator().Grants();
  ASSERT_TRUE(grants.ok() && grants->grant_size() == 1);
  EXPECT_EQ(grants->grant(0).unit(), Named("NAME.service"));
  ExpectDenied("/NAME.slice");
}

TEST_F(UnitTest, SliceAndCgroupMatchWithWhatIsBelow) {
  ASSERT_NO_FATAL_FAILURE(
      StartFor("slice: 'NAME.slice' cgroup: '/NAME.slice/NAME-a.slice'"));
  tree_.Make(Named("/NAME.slice/NAME-a.slice/x.service"));
  tree_.Make(Named("/NAME.slice/NAME-b.slice"));
  ExpectGranted("/NAME.slice/NAME-a.slice/x.service");
  ExpectGranted("/NAME.slice/NAME-a.slice");
  ExpectDenied("/NAME.slice/NAME-b.slice");
}

TEST_F(UnitTest, AUserManagersUnitDoesNotMatch) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'NAME.service'"));
  ExpectDenied(MakeUserManagersUnit());
}

TEST_F(UnitTest, AUserManagersUnitMatches_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(
      StartFor("unit: 'NAME.service'", {"unit_is_system_managers"}));
  ExpectGranted(MakeUserManagersUnit());
}

TEST_F(UnitTest, AContainersUnitDoesNotMatch) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'NAME.service'"));
  ExpectDenied(MakeContainersUnit());
}

TEST_F(UnitTest, AContainersUnitMatches_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(
      StartFor("unit: 'NAME.service'", {"unit_is_system_managers"}));
  ExpectGranted(MakeContainersUnit());
}

TEST_F(UnitTest, ADirectoryThatAUserMadeDoesNotMatch) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'NAME.service'"));
  ExpectDenied(MakeUsersDirectory());
}

TEST_F(UnitTest, ADirectoryThatAUserMadeMatches_WithoutMitigation) {
  ASSERT_NO_FATAL_FAILURE(
      StartFor("unit: 'NAME.service'", {"cgroup_owner_check"}));
  ExpectGranted(MakeUsersDirectory());
}

TEST_F(UnitTest, ASliceThatAUserMadeDoesNotMatch) {
  ASSERT_NO_FATAL_FAILURE(StartFor("slice: 'NAME-own-x.slice'"));
  MakeUsersDirectory();
  tree_.MakeAs(kNobody, Named("/NAME.slice/NAME-own.slice/NAME-own-x.slice"));
  ExpectDenied("/NAME.slice/NAME-own.slice/NAME-own-x.slice");
}

TEST_F(UnitTest, RevokingAUnitEndsItsGrantsAndNoOthers) {
  ASSERT_NO_FATAL_FAILURE(StartFor("slice: 'NAME.slice'"));
  tree_.Make(Named("/NAME.slice/NAME.service/worker"));
  tree_.Make(Named("/NAME.slice/other.service"));
  ExpectGranted("/NAME.slice/other.service");
  // It is in the unit, in two places.
  Nobody worker;
  Nobody keeper;
  tree_.Enter(Named("/NAME.slice/NAME.service/worker"), worker.pid());
  tree_.Enter(Named("/NAME.slice/NAME.service"), keeper.pid());
  for (Nobody* each : {&worker, &keeper}) {
    Connect(*each);
    each->Acquire("packet_sampler program");
  }
  v1::RevokeRequest request;
  request.set_unit("NAME.service");
  EXPECT_EQ(Revoke(request), 0u);
  request.set_unit(Named("NAME.service"));
  EXPECT_EQ(Revoke(request), 2u);
  EXPECT_EQ(Status().grants(), 1u);
  request.set_unit("other.service");
  EXPECT_EQ(Revoke(request), 1u);
}

// What the session was when it began is what it is.
TEST_F(UnitTest, WhoMovesAfterwardsIsWhoItWas) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'NAME.service'"));
  tree_.Make(Named("/NAME.slice/NAME.service"));
  ExpectDenied("/NAME.slice");
  tree_.Enter(Named("/NAME.slice/NAME.service"), client_->pid());
  EXPECT_EQ(client_->Ask("acquire packet_sampler program"), kDenied);
}

TEST_F(UnitTest, ExplainsALiveProcess) {
  ASSERT_NO_FATAL_FAILURE(StartFor("unit: 'NAME.service'"));
  tree_.Make(Named("/NAME.slice/other.service"));
  ExpectDenied("/NAME.slice/other.service");
  v1::ExplainRequest request;
  request.set_program("packet_sampler");
  request.set_pid(static_cast<uint32_t>(client_->pid()));
  const auto reply = administrator().Explain(request);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_FALSE(reply->verdict().allowed());
  EXPECT_EQ(reply->subject().uid(), kNobody);
  EXPECT_EQ(reply->subject().gid(), kNobody);
  EXPECT_EQ(reply->subject().cgroup(), Named("/NAME.slice/other.service"));
  ASSERT_EQ(reply->consulted_size(), 1);
  EXPECT_FALSE(reply->consulted(0).matches());
  EXPECT_EQ(reply->consulted(0).why(), "its unit is 'other.service'");
  client_->KillAndReap();
  EXPECT_EQ(ReasonOf(administrator().Explain(request).status()),
            v1::REASON_INVALID_ARGUMENT);
}

}  // namespace
}  // namespace bpfgrant::test

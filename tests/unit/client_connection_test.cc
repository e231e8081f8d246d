// Grants, pages and events of a session, against a daemon that says what each
// test has it say.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "client/bpfgrant/connection.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "tests/unit/fake_daemon.h"

namespace bpfgrant {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(ClientConnectionTest, AcquiresWithTheFdsInTheirOrder) {
  OpenSession();
  daemon_->Run([&] {
    const auto request = daemon_->Next();
    EXPECT_EQ(request.frame.acquire().program(), "packet_sampler");
    EXPECT_EQ(request.frame.acquire().interface(), "packet_sampler/1");
    EXPECT_EQ(request.frame.acquire().interface_hash(), "abc");
    EXPECT_THAT(request.frame.acquire().handle(), ElementsAre("samples"));
    EXPECT_EQ(request.frame.acquire().delivery(), v1::DELIVERY_ANY);
    EXPECT_THAT(request.fds, SizeIs(1));
    daemon_->AnswerAcquire(request.frame.request(), 42, 3, 3);
  });
  const auto socket = Files(1);
  auto grant = connection_->Acquire({.program = "packet_sampler",
                                     .interface = "packet_sampler/1",
                                     .interface_hash = "abc",
                                     .handles = {"samples"},
                                     .delivery = v1::DELIVERY_ANY,
                                     .target = socket[0].get()});
  ASSERT_TRUE(grant.ok()) << grant.status();
  EXPECT_EQ(grant->id(), 42u);
  EXPECT_FALSE(grant->ended());
  ASSERT_THAT(grant->handles(), SizeIs(3));
  for (const Grant::Handle& handle : grant->handles()) {
    EXPECT_NE(fcntl(handle.fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_EQ(grant->program_fd(), grant->handles()[0].fd.get());
  ASSERT_TRUE(grant->Find("map2").ok());
  EXPECT_EQ((*grant->Find("map2"))->fd.get(), grant->handles()[2].fd.get());
  EXPECT_TRUE(absl::IsNotFound(grant->Find("map3").status()));
  EXPECT_GE(fcntl(socket[0].get(), F_GETFD), 0) << "the caller's own";
}

TEST_F(ClientConnectionTest, ARefusalCarriesItsReasonAndVerdict) {
  OpenSession();
  daemon_->Run([&] {
    v1::ServerFrame frame;
    frame.set_request(daemon_->Next().frame.request());
    frame.mutable_refusal()->set_reason(v1::REASON_DENIED_BY_RULE);
    frame.mutable_refusal()->set_message("no");
    frame.mutable_refusal()->mutable_verdict()->set_rule("nobody");
    daemon_->Send(frame);
  });
  const auto grant = connection_->Acquire({.program = "p"});
  EXPECT_EQ(ReasonOf(grant.status()), v1::REASON_DENIED_BY_RULE);
  EXPECT_EQ(RefusalOf(grant.status()).verdict().rule(), "nobody");
  // A refusal changes nothing about the connection.
  EXPECT_TRUE(Acquire(1).ok());
}

TEST_F(ClientConnectionTest, AnEventBeforeTheAnswerIsNotTheAnswer) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  std::vector<uint64_t> ended;
  connection_->OnEvent(
      [&](const v1::Event& event) { ended.push_back(event.grant().grant()); });
  daemon_->Run([&] {
    const uint64_t request = daemon_->Next().frame.request();
    daemon_->SendEnd(42, v1::REASON_REVOKED);
    v1::ServerFrame frame;
    frame.set_request(request);
    frame.mutable_status()->set_version("9");
    daemon_->Send(frame);
  });
  const auto status = connection_->Status();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->version(), "9");
  EXPECT_TRUE(grant->ended());
  EXPECT_EQ(grant->end_reason(), v1::REASON_REVOKED);
  EXPECT_THAT(ended, ElementsAre(42));
}

TEST_F(ClientConnectionTest, AnAnswerOfAnotherKindIsAnError) {
  OpenSession();
  daemon_->Run([&] {
    v1::ServerFrame frame;
    frame.set_request(daemon_->Next().frame.request());
    frame.mutable_reload();
    daemon_->Send(frame);
  });
  EXPECT_TRUE(absl::IsInternal(connection_->Status().status()));
}

TEST_F(ClientConnectionTest, AnAnswerToAnotherRequestIsNotTaken) {
  OpenSession();
  daemon_->Run([&] {
    const uint64_t request = daemon_->Next().frame.request();
    v1::ServerFrame frame;
    frame.set_request(request - 1);
    frame.mutable_status()->set_version("wrong");
    daemon_->Send(frame);
    frame.set_request(request);
    frame.mutable_status()->set_version("right");
    daemon_->Send(frame);
  });
  const auto status = connection_->Status();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->version(), "right");
}

TEST_F(ClientConnectionTest, ALateGrantIsGivenBackAndItsFdsClosed) {
  OpenSession(milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      connection_->Acquire({.program = "p"}).status()));
  const size_t fds = CountOpenFds();
  // Its request still waits to be read here.
  daemon_->AnswerAcquire(daemon_->Next().frame.request(), 42, 3, 3);
  EXPECT_TRUE(absl::IsDeadlineExceeded(connection_->Status().status()));
  EXPECT_EQ(CountOpenFds(), fds);
  EXPECT_TRUE(daemon_->Next().frame.has_status());
  EXPECT_EQ(daemon_->Next().frame.release().grant(), 42u);
}

// How many fds a reply announces, and how many come.
class ClientWrongFdsTest
    : public ClientConnectionTest,
      public ::testing::WithParamInterface<std::pair<size_t, size_t>> {};

TEST_P(ClientWrongFdsTest, MakeNoGrantAndEndTheSession) {
  const auto [announced, count] = GetParam();
  OpenSession();
  const size_t fds = CountOpenFds();
  daemon_->Run([&, announced = announced, count = count] {
    daemon_->AnswerAcquire(daemon_->Next().frame.request(), 42, announced,
                           count);
  });
  EXPECT_TRUE(
      absl::IsInternal(connection_->Acquire({.program = "p"}).status()));
  daemon_->Join();
  // What the session holds cannot be told any more, so it is over.
  EXPECT_LT(CountOpenFds(), fds);
}

INSTANTIATE_TEST_SUITE_P(Counts, ClientWrongFdsTest,
                         ::testing::Values(std::pair<size_t, size_t>(2, 3),
                                           std::pair<size_t, size_t>(3, 2),
                                           std::pair<size_t, size_t>(1, 0)));

TEST_F(ClientConnectionTest, MoreFdsThanAnyGrantHasAreClosed) {
  OpenSession();
  const size_t fds = CountOpenFds();
  daemon_->Run([&] {
    daemon_->AnswerAcquire(daemon_->Next().frame.request(), 42,
                           kMaxFdsPerGrant + 1, kMaxFdsPerGrant + 1);
  });
  EXPECT_FALSE(connection_->Acquire({.program = "p"}).ok());
  daemon_->Join();
  EXPECT_LE(CountOpenFds(), fds);
}

TEST_F(ClientConnectionTest, ADestroyedGrantIsReleasedWithoutWaiting) {
  OpenSession();
  {
    auto grant = Acquire(42);
    ASSERT_TRUE(grant.ok());
  }
  EXPECT_EQ(daemon_->Next().frame.release().grant(), 42u);
}

TEST_F(ClientConnectionTest, AMovedGrantIsReleasedOnce) {
  OpenSession();
  auto first = Acquire(42);
  auto second = Acquire(43);
  ASSERT_TRUE(first.ok() && second.ok());
  *first = *std::move(second);
  EXPECT_EQ(daemon_->Next().frame.release().grant(), 42u);
  EXPECT_EQ(first->id(), 43u);
  EXPECT_TRUE(daemon_->Silent(milliseconds(20)));
}

TEST_F(ClientConnectionTest, ReleaseWaitsForTheAnswer) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  daemon_->Run([&] {
    const auto request = daemon_->Next();
    EXPECT_EQ(request.frame.release().grant(), 42u);
    v1::ServerFrame frame;
    frame.set_request(request.frame.request());
    frame.mutable_release();
    daemon_->Send(frame);
  });
  EXPECT_TRUE(grant->Release().ok());
  daemon_->Join();
  EXPECT_THAT(grant->handles(), IsEmpty());
  EXPECT_EQ(ReasonOf(grant->Release()), v1::REASON_UNKNOWN_GRANT);
}

TEST_F(ClientConnectionTest, AnEndedGrantIsNotReleased) {
  OpenSession();
  {
    auto grant = Acquire(42);
    ASSERT_TRUE(grant.ok());
    daemon_->SendEnd(42, v1::REASON_POLICY_CHANGED);
    EXPECT_TRUE(connection_->ProcessEvents().ok());
    EXPECT_EQ(grant->end_reason(), v1::REASON_POLICY_CHANGED);
  }
  EXPECT_TRUE(daemon_->Silent(milliseconds(20)));
}

TEST_F(ClientConnectionTest, ALostConnectionEndsEveryGrant) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  daemon_->Close();
  EXPECT_TRUE(absl::IsUnavailable(connection_->ProcessEvents()));
  EXPECT_EQ(grant->end_reason(), v1::REASON_SESSION_ENDED);
  EXPECT_TRUE(absl::IsUnavailable(connection_->Status().status()));
}

TEST_F(ClientConnectionTest, AGrantThatOutlivesItsConnectionHasEnded) {
  OpenSession();
  auto grant = Acquire(42);
  ASSERT_TRUE(grant.ok());
  connection_.reset();
  EXPECT_EQ(grant->end_reason(), v1::REASON_SESSION_ENDED);
  EXPECT_GE(fcntl(grant->program_fd(), F_GETFD), 0) << "its fds are its own";
}

TEST_F(ClientConnectionTest, ListGoesThroughAllPages) {
  OpenSession();
  daemon_->Run([&] {
    for (const char* name : {"a", "b", "c"}) {
      const auto request = daemon_->Next();
      v1::ServerFrame frame;
      frame.set_request(request.frame.request());
      frame.mutable_list()->add_program()->set_name(name);
      if (*name == 'a') {
        EXPECT_EQ(request.frame.list().after(), "");
      } else {
        EXPECT_EQ(request.frame.list().after(), std::string(1, *name - 1));
      }
      if (*name != 'c') frame.mutable_list()->set_next(name);
      daemon_->Send(frame);
    }
  });
  const auto list = connection_->List();
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->program_size(), 3);
  EXPECT_THAT(list->next(), IsEmpty());
}

TEST_F(ClientConnectionTest, WaitsForEvents) {
  OpenSession();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      connection_->WaitEvent(milliseconds(10)).status()));
  daemon_->SendEnd(1, v1::REASON_REVOKED);
  daemon_->SendEnd(2, v1::REASON_WITHDRAWN);
  for (const uint64_t grant : {1, 2}) {
    const auto event = connection_->WaitEvent(milliseconds(5000));
    ASSERT_TRUE(event.ok()) << event.status();
    EXPECT_EQ(event->grant().grant(), grant);
  }
}

TEST_F(ClientConnectionTest, ItsFdAnnouncesEvents) {
  OpenSession();
  pollfd watch{connection_->fd(), POLLIN, 0};
  EXPECT_EQ(poll(&watch, 1, 0), 0);
  daemon_->SendEnd(1, v1::REASON_REVOKED);
  EXPECT_EQ(poll(&watch, 1, 1000), 1);
  EXPECT_TRUE(connection_->ProcessEvents().ok());
  EXPECT_EQ(poll(&watch, 1, 0), 0);
}

}  // namespace
}  // namespace bpfgrant

// Looking into a loop: an administrator reads what it sees and does, over the
// broker socket, over gRPC and with the tool, while somebody else runs it.

#include <map>

#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/grpc.h"
#include "gmock/gmock.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/skip.h"
#include "tests/harness/unprivileged.h"
#include "tests/loop/client/probe_test.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;

// Root runs the loop and reads its trace, over a connection for each.
class TraceTest : public DaemonTest {
 protected:
  void SetUp() override {
    BPFGRANT_REQUIRE_KERNEL(KernelHasLoops(),
                            "io_uring loops (struct io_uring_bpf_ops)");
    DaemonTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ASSERT_TRUE(StartDaemon({.policy = kAllowAll, .config = kNothingAhead}));
    owner_ = Connect();
    reader_ = Connect();
    ASSERT_TRUE(owner_.has_value() && reader_.has_value());
  }
  void TearDown() override {
    loop_.reset();
    owner_.reset();
    reader_.reset();
    DaemonTest::TearDown();
  }
  std::optional<Connection> Connect() {
    auto connection = Connection::Connect({.path = daemon().broker_socket()});
    EXPECT_TRUE(connection.ok()) << connection.status();
    return connection.ok() ? std::optional(*std::move(connection))
                           : std::nullopt;
  }
  // A loop that will count to `count`.
  void Make(uint32_t count) {
    auto loop =
        Loop::Create(&*owner_, {.program = "probe", .interface = "probe/1"});
    ASSERT_TRUE(loop.ok()) << loop.status();
    loop_.emplace(*std::move(loop));
    auto* memory = loop_->memory_as<probe_memory>();
    memory->job = PROBE_COUNT;
    memory->count = count;
  }
  void Run() { EXPECT_THAT(loop_->Run({}), StopsWith(BPFGRANT_STOP_DONE)); }
  uint64_t grant() { return loop_->grant()->id(); }

  std::optional<Connection> owner_, reader_;
  std::optional<Loop> loop_;
};

void ExpectCountedToThree(const std::vector<v1::TraceEvent>& events) {
  std::map<v1::TraceEvent::Kind, int> kinds;
  uint64_t at = 0;
  for (const v1::TraceEvent& event : events) {
    ++kinds[event.kind()];
    EXPECT_GE(event.at_ns(), at);
    at = event.at_ns();
    EXPECT_EQ(event.dropped(), 0u);
    if (event.kind() == v1::TraceEvent::KIND_REQUEST) {
      EXPECT_EQ(event.opcode(), 0u);
      EXPECT_EQ(event.user_data(), event.step() + 1);
    }
  }
  EXPECT_EQ(kinds[v1::TraceEvent::KIND_REQUEST], 3);
  EXPECT_EQ(kinds[v1::TraceEvent::KIND_COMPLETION], 3);
  EXPECT_EQ(kinds[v1::TraceEvent::KIND_DECISION], 4);
  EXPECT_EQ(events.back().stop(), static_cast<uint32_t>(BPFGRANT_STOP_DONE));
}

TEST_F(TraceTest, TellsOfEachStepAndOfTheEnd) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  ASSERT_TRUE(reader_->Trace(grant()).ok());
  Run();
  std::vector<v1::TraceEvent> events;
  for (int i = 0; i < 10; ++i) {
    const auto event = reader_->WaitTrace(kPatience);
    ASSERT_TRUE(event.ok()) << event.status();
    EXPECT_EQ(event->grant(), grant());
    events.push_back(*event);
  }
  ExpectCountedToThree(events);
  ASSERT_TRUE(loop_->grant()->Release().ok());
  const auto end = reader_->WaitTrace(kPatience);
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->kind(), v1::TraceEvent::KIND_ENDED);
  EXPECT_EQ(end->reason(), v1::REASON_RELEASED);
  // It can trace another one now.
  ASSERT_NO_FATAL_FAILURE(Make(3));
  EXPECT_TRUE(reader_->Trace(grant()).ok());
}

TEST_F(TraceTest, OverGrpcLikewise) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  const auto stub = NewStub(daemon().control_socket());
  grpc::ClientContext context;
  UseSession(context, *reader_);
  v1::TraceRequest request;
  request.set_grant(grant());
  const auto stream = stub->Trace(&context, request);
  stream->WaitForInitialMetadata();
  Run();
  std::vector<v1::TraceEvent> events(10);
  for (v1::TraceEvent& event : events) ASSERT_TRUE(stream->Read(&event));
  ExpectCountedToThree(events);
  ASSERT_TRUE(loop_->grant()->Release().ok());
  v1::TraceEvent end;
  ASSERT_TRUE(stream->Read(&end));
  EXPECT_EQ(end.kind(), v1::TraceEvent::KIND_ENDED);
  EXPECT_FALSE(stream->Read(&end));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(TraceTest, WhoDoesNotReadMissesSomeAndHoldsUpNobody) {
  ASSERT_NO_FATAL_FAILURE(Make(20'000));
  ASSERT_TRUE(reader_->Trace(grant()).ok());
  Run();
  uint64_t events = 0, dropped = 0, steps = 0;
  while (steps < 20'000) {
    const auto event = reader_->WaitTrace(std::chrono::seconds(1));
    if (!event.ok()) break;
    ++events;
    dropped += event->dropped();
    steps = event->step();
  }
  EXPECT_GT(events, 0u);
  EXPECT_LT(events, 60'000u);
  EXPECT_TRUE(reader_->Status().ok());
}

TEST_F(TraceTest, NobodyTracesAnymoreOnceTheReaderIsGone) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  for (int i = 0; i < 10; ++i) {
    auto reader = Connect();
    ASSERT_TRUE(reader.has_value());
    EXPECT_TRUE(reader->Trace(grant()).ok()) << i;
    reader.reset();
    // The daemon sees its end before it serves this.
    EXPECT_TRUE(reader_->Status().ok());
  }
  Run();
}

TEST_F(TraceTest, AtMostFourRead) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  std::vector<Connection> readers;
  for (int i = 0; i < 4; ++i) {
    auto reader = Connect();
    ASSERT_TRUE(reader.has_value());
    EXPECT_TRUE(reader->Trace(grant()).ok());
    readers.push_back(*std::move(reader));
  }
  EXPECT_EQ(ReasonOf(reader_->Trace(grant())), v1::REASON_BUSY);
}

TEST_F(TraceTest, RefusesWhatThereIsNot) {
  EXPECT_EQ(ReasonOf(reader_->Trace(4711)), v1::REASON_UNKNOWN_GRANT);
  ASSERT_NO_FATAL_FAILURE(Make(3));
  ASSERT_TRUE(reader_->Trace(grant()).ok());
  EXPECT_EQ(ReasonOf(reader_->Trace(grant())), v1::REASON_OUT_OF_ORDER);
}

TEST_F(TraceTest, TheToolWritesALineForEach) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  UnprivilegedOptions root;
  root.uid = 0;
  root.gid = 0;
  auto tool =
      UnprivilegedProcess::Spawn(BPFGRANTCTL_PATH,
                                 {"--socket", daemon().broker_socket(), "trace",
                                  absl::StrCat(grant()), "--count", "10"},
                                 root);
  ASSERT_TRUE(tool.ok()) << tool.status();
  std::this_thread::sleep_for(std::chrono::seconds(1));
  Run();
  const Outcome outcome = tool->Wait();
  EXPECT_TRUE(outcome.ok()) << outcome.Describe();
  EXPECT_THAT(outcome.output, HasSubstr("request     0x1  NOP"));
  EXPECT_THAT(outcome.output, HasSubstr("         0  goes on"));
  EXPECT_THAT(outcome.output, HasSubstr("completion  0x3  0"));
  EXPECT_THAT(outcome.output, HasSubstr("stops       DONE"));
}

TEST_F(TraceTest, NobodyElseMay) {
  ASSERT_NO_FATAL_FAILURE(Make(3));
  const Outcome outcome = RunUnprivileged(
      BPFGRANTCTL_PATH,
      {"--socket", daemon().broker_socket(), "trace", absl::StrCat(grant())});
  EXPECT_EQ(outcome.exit_code, 1) << outcome.Describe();
  EXPECT_THAT(outcome.errors, HasSubstr("not-administrator"));
}

}  // namespace
}  // namespace bpfgrant::test

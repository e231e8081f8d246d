// A client of nothing but generated code, recvmsg and sendmsg: what a program
// in another language is. It does one thing, by its first argument, in the
// runtime directory that is its second, and prints lines that the test reads.

#include <linux/bpf.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "bpfgrant/v1/broker.pb.h"
#include "bpfgrant/v1/service.grpc.pb.h"
#include "tests/harness/probe_privilege.h"
#include "tests/privileged/client/broker_socket.h"

namespace bpfgrant::test {
namespace {

using Stub = v1::Bpfgrant::Stub;

// A context that calls in the name of `token`, or of nobody.
struct Context : grpc::ClientContext {
  explicit Context(const std::string& token = "") {
    if (!token.empty()) AddMetadata("bpfgrant-token-bin", token);
    set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    set_wait_for_ready(true);
  }
  // The reason in the trailing metadata; "none" without.
  std::string Reason() const {
    const auto& trailing = GetServerTrailingMetadata();
    const auto found = trailing.find("bpfgrant-refusal-bin");
    v1::Refusal refusal;
    if (found == trailing.end() ||
        !refusal.ParseFromArray(found->second.data(),
                                static_cast<int>(found->second.size()))) {
      return "none";
    }
    return v1::Reason_Name(refusal.reason());
  }
};

void Say(const char* what, const grpc::Status& status, const Context& context) {
  std::printf("%s %d %s\n", what, static_cast<int>(status.error_code()),
              context.Reason().c_str());
  std::fflush(stdout);
}

v1::AcquireRequest Sampler() {
  v1::AcquireRequest request;
  request.set_program("packet_sampler");
  request.set_interface("packet_sampler/1");
  request.set_delivery(v1::DELIVERY_PROGRAM);
  return request;
}

grpc::Status AcquireOne(Stub& stub, const std::string& token,
                        v1::AcquireReply& reply, Context& context) {
  context.AddMetadata("bpfgrant-token-bin", token);
  return stub.Acquire(&context, Sampler(), &reply);
}

uint64_t CountSeen(int counters) {
  const uint32_t key = 0;
  uint64_t value[3] = {};
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(counters);
  attributes.key = reinterpret_cast<uintptr_t>(&key);
  attributes.value = reinterpret_cast<uintptr_t>(value);
  if (syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attributes, sizeof(attributes)) <
      0) {
    Fail("lookup");
  }
  return value[0];
}

// Acquires over gRPC, claims on the broker socket, and uses what came.
void AcquireAndUse(Stub& stub, BrokerSocket& broker) {
  Context context;
  v1::AcquireReply acquired;
  const grpc::Status status =
      AcquireOne(stub, broker.token(), acquired, context);
  Say("acquire", status, context);
  std::printf("claimable %d\n", acquired.claimable());
  v1::ClientFrame frame;
  frame.mutable_claim()->set_grant(acquired.grant());
  const v1::ServerFrame reply = broker.Call(frame);
  std::printf("fds %zu of %d\n", broker.fds().size(),
              reply.acquire().handle_size());
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair) < 0 ||
      setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_BPF, &broker.fds().at(0),
                 sizeof(int)) < 0) {
    Fail("attach");
  }
  for (int i = 0; i < reply.acquire().handle_size(); ++i) {
    if (reply.acquire().handle(i).name() != "counters") continue;
    for (int sent = 0; sent < 3; ++sent) (void)!send(pair[0], "x", 1, 0);
    std::printf("seen %llu\n",
                static_cast<unsigned long long>(CountSeen(broker.fds().at(i))));
  }
  // A second claim of the same.
  frame.mutable_claim()->set_grant(acquired.grant());
  std::printf("again %s\n",
              v1::Reason_Name(broker.Call(frame).refusal().reason()).c_str());
  Context release(broker.token());
  v1::ReleaseRequest request;
  request.set_grant(acquired.grant());
  v1::ReleaseReply nothing;
  const grpc::Status released = stub.Release(&release, request, &nothing);
  Say("release", released, release);
}

void TryTokens(Stub& stub, BrokerSocket& broker) {
  v1::StatusReply reply;
  std::string wrong = broker.token();
  wrong[0] = static_cast<char>(wrong[0] ^ 1);
  for (const std::string& token :
       {std::string(), wrong, std::string(32, '\0'), broker.token() + "x",
        broker.token().substr(0, 31), broker.token()}) {
    Context context(token);
    const grpc::Status status = stub.Status(&context, {}, &reply);
    Say("status", status, context);
  }
  broker.Close();
  Context context(broker.token());
  grpc::Status status;
  // The daemon may not have seen the end yet.
  for (int i = 0; i < 200; ++i) {
    Context again(broker.token());
    status = stub.Status(&again, {}, &reply);
    if (!status.ok()) break;
    usleep(50'000);
  }
  status = stub.Status(&context, {}, &reply);
  Say("closed", status, context);
}

void ClaimHere(Stub& stub, BrokerSocket& broker) {
  Context acquire, claim(broker.token());
  v1::AcquireReply reply;
  AcquireOne(stub, broker.token(), reply, acquire);
  v1::ClaimRequest request;
  request.set_grant(reply.grant());
  const grpc::Status status = stub.Claim(&claim, request, &reply);
  Say("claim", status, claim);
}

// More grants than may wait to be claimed; claiming one makes room.
void LeaveUnclaimed(Stub& stub, BrokerSocket& broker) {
  v1::AcquireReply reply;
  for (int i = 0; i < 6; ++i) {
    Context context;
    const grpc::Status status =
        AcquireOne(stub, broker.token(), reply, context);
    Say("acquire", status, context);
  }
  v1::ClientFrame frame;
  frame.mutable_claim()->set_grant(reply.grant());
  std::printf("claimed %d\n", broker.Call(frame).has_acquire());
  Context context;
  const grpc::Status status = AcquireOne(stub, broker.token(), reply, context);
  Say("acquire", status, context);
}

// Its own grant begins and ends while it watches; then its session does.
void Watch(Stub& stub, BrokerSocket& broker) {
  Context context(broker.token());
  const auto reader = stub.Watch(&context, {});
  reader->WaitForInitialMetadata();
  v1::ClientFrame acquire, release;
  *acquire.mutable_acquire() = Sampler();
  const uint64_t grant = broker.Call(acquire).acquire().grant();
  release.mutable_release()->set_grant(grant);
  broker.Call(release);
  v1::Event event;
  for (int i = 0; i < 2 && reader->Read(&event); ++i) {
    std::printf("event %s %d %s\n", v1::Event::Type_Name(event.type()).c_str(),
                event.grant().grant() == grant,
                v1::Reason_Name(event.reason()).c_str());
  }
  broker.Close();
  while (reader->Read(&event)) std::printf("event, and it was over\n");
  std::printf("end %d\n", static_cast<int>(reader->Finish().error_code()));
}

void AskAsOneOfMany(Stub& stub, BrokerSocket& broker) {
  Context grants(broker.token()), revoke(broker.token()),
      reload(broker.token()), describe(broker.token()), explain(broker.token()),
      activity(broker.token()), metrics(broker.token());
  v1::GrantsReply seen;
  Say("grants", stub.Grants(&grants, {}, &seen), grants);
  std::printf("sees %d\n", seen.grant_size());
  v1::RevokeRequest all;
  all.set_all(true);
  v1::RevokeReply revoked;
  Say("revoke", stub.Revoke(&revoke, all, &revoked), revoke);
  v1::ReloadReply reloaded;
  Say("reload", stub.Reload(&reload, {}, &reloaded), reload);
  v1::DescribeRequest program;
  program.set_program("reuseport_steer");
  v1::DescribeReply described;
  Say("describe", stub.Describe(&describe, program, &described), describe);
  v1::ExplainRequest root;
  root.set_program("packet_sampler");
  root.mutable_subject()->set_uid(0);
  v1::ExplainReply explained;
  Say("explain", stub.Explain(&explain, root, &explained), explain);
  v1::ActivityReply active;
  Say("activity", stub.Activity(&activity, {}, &active), activity);
  v1::MetricsReply measured;
  Say("metrics", stub.Metrics(&metrics, {}, &measured), metrics);
  std::printf("of programs %d\n",
              measured.text().find("program=") != std::string::npos ||
                  measured.text().find("reason=") != std::string::npos);
}

grpc::ByteBuffer Bytes(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  (void)buffer.Dump(&slices);
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

// Health and reflection, whose stubs nobody generated here: one message each
// way, written by hand.
void AskWithoutToken(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  const auto ask = [&](const std::string& method, const std::string& request) {
    Context context;
    const auto call = stub.PrepareCall(&context, method, &queue);
    grpc::ByteBuffer reply;
    void* tag;
    bool ok = true;
    const auto next = [&] { return queue.Next(&tag, &ok) && ok; };
    call->StartCall(nullptr);
    if (!next()) return std::string("no call");
    call->Write(Bytes(request), nullptr);
    if (!next()) return std::string("no write");
    call->Read(&reply, nullptr);
    const bool answered = next();
    context.TryCancel();
    grpc::Status status;
    call->Finish(&status, nullptr);
    next();
    return answered ? Text(reply) : std::string("no answer");
  };
  const std::string service = "bpfgrant.v1.Bpfgrant";
  // HealthCheckRequest.service; HealthCheckResponse.status 1: SERVING.
  const std::string health =
      ask("/grpc.health.v1.Health/Check",
          std::string("\x0a") + static_cast<char>(service.size()) + service);
  std::printf("health %d\n", health == "\x08\x01");
  // ServerReflectionRequest.list_services.
  const std::string services =
      ask("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
          std::string("\x3a\x00", 2));
  std::printf("reflection %d\n", services.find(service) != std::string::npos);
}

int Run(const std::string& verb, const std::string& folder) {
  const auto channel = grpc::CreateChannel("unix:" + folder + "/control.sock",
                                           grpc::InsecureChannelCredentials());
  if (verb == "without-token") {
    AskWithoutToken(channel);
    return 0;
  }
  Stub stub(channel);
  BrokerSocket broker(folder + "/broker.sock");
  if (verb == "use") AcquireAndUse(stub, broker);
  if (verb == "tokens") TryTokens(stub, broker);
  if (verb == "claim") ClaimHere(stub, broker);
  if (verb == "unclaimed") LeaveUnclaimed(stub, broker);
  if (verb == "watch") Watch(stub, broker);
  if (verb == "others") AskAsOneOfMany(stub, broker);
  return 0;
}

}  // namespace
}  // namespace bpfgrant::test

int main(int argc, char** argv) {
  bpfgrant::test::AssertUnprivileged();
  return argc == 3 ? bpfgrant::test::Run(argv[1], argv[2]) : 2;
}

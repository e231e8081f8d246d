#include "daemon/broker/control.h"

#include <fcntl.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_posix.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "daemon/broker/control_calls.h"
#include "daemon/broker/identify.h"
#include "proto/wire/limits.h"
#include "spdlog/spdlog.h"

namespace bpfgrant::broker {

struct Control::Server {
  std::unique_ptr<ControlCalls> calls;
  std::unique_ptr<grpc::Server> server;
};

Control::Control(Parts parts, UniqueFd listener)
    : parts_(parts),
      listener_(std::move(listener)),
      reserve_(open("/dev/null", O_RDONLY | O_CLOEXEC)) {}

Control::~Control() { Stop(); }

absl::Status Control::Start() {
  server_ = std::make_unique<Server>();
  server_->calls = std::make_unique<ControlCalls>(ControlCalls::Shared{
      parts_.loop, parts_.service, parts_.watchers, parts_.sessions});
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ResourceQuota quota("control");
  quota.SetMaxThreads(8);
  quota.Resize(32 * 1024 * 1024);
  grpc::ServerBuilder builder;
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(kMaxControlMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             kMaxControlStreams);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 8 * 1024);
  // No port: connections are accepted here, peer and all, and given to gRPC.
  builder.RegisterService(server_->calls.get());
  server_->server = builder.BuildAndStart();
  if (server_->server == nullptr) {
    return absl::InternalError("gRPC did not start");
  }
  server_->server->GetHealthCheckService()->SetServingStatus(
      "bpfgrant.v1.Bpfgrant", true);
  source_ = parts_.loop.Io(listener_.get(), EPOLLIN,
                           [this](uint32_t) { OnReadable(); });
  return absl::OkStatus();
}

void Control::Stop() {
  source_ = EventLoop::Source();
  if (server_ == nullptr) return;
  // Calls that gRPC has posted are answered: the sessions are over, and so the
  // answer is no.
  // Shutdown returns when every call is answered, and calls that come in the
  // meantime are answered by this thread.
  std::atomic<bool> done = false;
  std::thread shutdown([this, &done] {
    server_->server->Shutdown(std::chrono::system_clock::now() +
                              std::chrono::milliseconds(500));
    done = true;
  });
  while (!done) {
    parts_.loop.RunPosted();
    usleep(1000);
  }
  shutdown.join();
  parts_.loop.RunPosted();
  peers_.clear();
  server_.reset();
}

void Control::OnReadable() {
  UniqueFd socket(
      accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (socket.valid()) {
    Admit(std::move(socket));
  } else if (errno == EMFILE || errno == ENFILE) {
    // Left in the queue it would keep us spinning.
    reserve_.reset();
    UniqueFd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    reserve_ = UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  }
}

void Control::Admit(UniqueFd socket) {
  const absl::StatusOr<uid_t> uid = PeerUid(socket.get());
  if (!uid.ok()) return;
  const auto of_user = of_user_.find(*uid);
  // The last places are root's.
  const size_t places =
      *uid == 0 ? kMaxControlConnections
                : kMaxControlConnections - kMaxControlConnectionsPerUser;
  if (peers_.size() >= places ||
      (of_user != of_user_.end() &&
       of_user->second >= kMaxControlConnectionsPerUser)) {
    parts_.service.CountRefusal(v1::REASON_TOO_MANY_SESSIONS);
    return;
  }
  auto peer = std::make_unique<Peer>();
  peer->uid = *uid;
  peer->watched = UniqueFd(fcntl(socket.get(), F_DUPFD_CLOEXEC, 0));
  if (!peer->watched.valid()) return;
  const uint64_t id = next_id_++;
  peer->source = parts_.loop.Io(peer->watched.get(), EPOLLRDHUP,
                                [this, id](uint32_t) { OnOver(id); });
  ++of_user_[*uid];
  peers_.emplace(id, std::move(peer));
  grpc::AddInsecureChannelFromFd(server_->server.get(), socket.release());
}

void Control::OnOver(uint64_t id) {
  const auto found = peers_.find(id);
  if (found == peers_.end()) return;
  const auto of_user = of_user_.find(found->second->uid);
  if (--of_user->second == 0) of_user_.erase(of_user);
  peers_.erase(found);
}

}  // namespace bpfgrant::broker

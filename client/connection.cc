#include "client/bpfgrant/connection.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/channel.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant {
namespace {

// Whoever else could bind that path must not be taken for the daemon: the
// kernel says who called listen(2).
absl::Status CheckServer(int socket, const std::string& path) {
  ucred server{};
  socklen_t length = sizeof(server);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &server, &length) < 0) {
    return absl::InternalError(
        absl::StrCat("SO_PEERCRED: ", std::strerror(errno)));
  }
  if (server.uid != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat(path, " belongs to uid ", server.uid,
                     ", not to root: that is not bpfgrantd"));
  }
  return absl::OkStatus();
}

template <typename Reply>
absl::StatusOr<Reply> Take(absl::StatusOr<Channel::Reply> reply,
                           bool (v1::ServerFrame::*has)() const,
                           Reply* (v1::ServerFrame::*field)()) {
  if (!reply.ok()) return reply.status();
  if (!(reply->frame.*has)()) {
    return absl::InternalError("bpfgrantd answered something else");
  }
  return std::move(*(reply->frame.*field)());
}

absl::Status CheckOffer(const Connection::AcquireOptions& wanted,
                        const v1::DescribeReply& offered) {
  const v1::ProgramSummary& summary = offered.summary();
  // Only administrators are told of what they may not have.
  if (!summary.verdict().allowed()) {
    return RefuseByVerdict(summary.verdict(),
                           absl::StrCat("'", wanted.program, "' is denied"));
  }
  if (!summary.available()) {
    v1::Refusal refusal;
    refusal.set_reason(summary.reason());
    refusal.set_message(offered.refusal());
    return StatusOf(refusal);
  }
  if (wanted.interface != summary.interface() ||
      (!wanted.interface_hash.empty() &&
       wanted.interface_hash != offered.interface_hash())) {
    return Refuse(
        v1::REASON_INTERFACE_MISMATCH,
        absl::StrCat("'", wanted.program, "' is '", summary.interface(),
                     "' with the layout ", offered.interface_hash()));
  }
  for (const std::string& name : wanted.handles) {
    if (std::none_of(offered.handle().begin(), offered.handle().end(),
                     [&](const auto& one) { return one.name() == name; })) {
      return Refuse(
          v1::REASON_UNKNOWN_HANDLE,
          absl::StrCat("'", wanted.program, "' has no handle '", name, "'"));
    }
  }
  return absl::OkStatus();
}

// Asks with what was read so far until nothing follows.
template <typename Reply, typename Ask>
absl::StatusOr<Reply> ReadPages(Ask ask) {
  // No name, or the number 0: there is no page after it.
  const auto end = Reply().next();
  Reply all;
  do {
    auto page = ask(all);
    if (!page.ok()) return page.status();
    if (page->next() != end && page->next() <= all.next()) {
      return absl::InternalError("bpfgrantd's answer does not go on");
    }
    all.clear_next();
    all.MergeFrom(*page);
  } while (all.next() != end);
  return all;
}

constexpr std::chrono::milliseconds kConnectAgain{50};

absl::StatusOr<UniqueFd> ConnectTo(const Connection::Options& options) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (options.path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.path, ": too long for a socket's path"));
  }
  std::memcpy(address.sun_path, options.path.data(), options.path.size());
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return absl::InternalError(absl::StrCat("socket: ", std::strerror(errno)));
  }
  // connect(2) waits while the daemon's backlog is full, at most for this long.
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(options.timeout);
  const timeval limit{
      seconds.count(),
      std::chrono::microseconds(options.timeout - seconds).count()};
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  int connected;
  do {
    connected = connect(socket.get(), reinterpret_cast<sockaddr*>(&address),
                        sizeof(address));
  } while (connected < 0 && errno == EINTR);
  if (connected < 0) {
    const int error = errno;
    if (error == EAGAIN) {
      return absl::DeadlineExceededError(
          absl::StrCat(options.path, ": too many wait to be accepted"));
    }
    if (error == EACCES) {
      return absl::PermissionDeniedError(
          absl::StrCat(options.path, ": ", std::strerror(error)));
    }
    return absl::UnavailableError(absl::StrCat(
        options.path, ": ", std::strerror(error), "; is bpfgrantd running?"));
  }
  if (absl::Status status = CheckServer(socket.get(), options.path);
      !status.ok()) {
    return status;
  }
  return socket;
}

}  // namespace

Connection::Connection(std::shared_ptr<Channel> channel)
    : channel_(std::move(channel)) {}
Connection::Connection(Connection&&) noexcept = default;

Connection& Connection::operator=(Connection&& other) noexcept {
  if (this == &other) return *this;
  // The old session ends even if grants of it are still held.
  if (channel_ != nullptr) channel_->Close();
  channel_ = std::move(other.channel_);
  return *this;
}

Connection::~Connection() {
  if (channel_ != nullptr) channel_->Close();
}

absl::StatusOr<Connection> Connection::Connect(Options options) {
  const auto until = Channel::Clock::now() + options.timeout;
  for (;;) {
    absl::StatusOr<UniqueFd> socket = ConnectTo(options);
    if (!socket.ok()) return socket.status();
    auto connection = FromSocket(*std::move(socket), options);
    // A daemon that was restarted while it said Hello is there again soon.
    if (!absl::IsUnavailable(connection.status()) ||
        Channel::Clock::now() + kConnectAgain > until) {
      return connection;
    }
    std::this_thread::sleep_for(kConnectAgain);
  }
}

absl::StatusOr<Connection> Connection::FromSocket(UniqueFd socket,
                                                  Options options) {
  auto channel = std::make_shared<Channel>(std::move(socket), options.timeout);
  if (absl::Status status = channel->Open(); !status.ok()) return status;
  return Connection(std::move(channel));
}

const v1::HelloReply& Connection::session() const {
  return channel_->session();
}

absl::StatusOr<Grant> Connection::Receive(v1::ClientFrame frame,
                                          const std::vector<int>& fds) {
  absl::StatusOr<Channel::Reply> reply = channel_->Call(frame, fds);
  if (!reply.ok()) return reply.status();
  const v1::AcquireReply& acquired = reply->frame.acquire();
  if (!reply->frame.has_acquire() ||
      static_cast<size_t>(acquired.handle_size()) != reply->fds.size()) {
    channel_->Close();
    return absl::InternalError("bpfgrantd sent other fds than it says");
  }
  channel_->Remember(acquired.grant());
  return Grant(channel_, acquired, std::move(reply->fds));
}

absl::StatusOr<Grant> Connection::Acquire(const AcquireOptions& options) {
  v1::ClientFrame frame;
  v1::AcquireRequest& request = *frame.mutable_acquire();
  request.set_program(options.program);
  request.set_interface(options.interface);
  request.set_interface_hash(options.interface_hash);
  request.set_delivery(options.delivery);
  for (const std::string& handle : options.handles) {
    request.add_handle(handle);
  }
  if (options.ring.has_value()) request.set_ring(*options.ring);
  *request.mutable_parameter() = {options.parameters.begin(),
                                  options.parameters.end()};
  std::vector<int> fds;
  for (const auto& [name, fd] : options.files) {
    v1::ParameterValue& value = *request.add_parameter();
    value.set_name(name);
    value.set_fd(static_cast<uint32_t>(fds.size()));
    fds.push_back(fd);
  }
  if (options.target >= 0) fds.push_back(options.target);
  return Receive(std::move(frame), fds);
}

absl::StatusOr<Grant> Connection::Claim(uint64_t grant, int target,
                                        std::optional<int> ring) {
  v1::ClientFrame frame;
  frame.mutable_claim()->set_grant(grant);
  if (ring.has_value()) frame.mutable_claim()->set_ring(*ring);
  return Receive(std::move(frame),
                 target < 0 ? std::vector<int>() : std::vector<int>{target});
}

absl::StatusOr<v1::ListReply> Connection::List() {
  return ReadPages<v1::ListReply>([this](const v1::ListReply& so_far) {
    v1::ClientFrame frame;
    frame.mutable_list()->set_after(so_far.next());
    return Take(channel_->Call(frame), &v1::ServerFrame::has_list,
                &v1::ServerFrame::mutable_list);
  });
}

absl::StatusOr<v1::GrantsReply> Connection::Grants() {
  return ReadPages<v1::GrantsReply>([this](const v1::GrantsReply& so_far) {
    v1::ClientFrame frame;
    frame.mutable_grants()->set_after(so_far.next());
    return Take(channel_->Call(frame), &v1::ServerFrame::has_grants,
                &v1::ServerFrame::mutable_grants);
  });
}

absl::StatusOr<Connection::Offer> Connection::Probe(
    const AcquireOptions& options) {
  auto description = Describe(options.program);
  if (!description.ok()) return description.status();
  if (auto status = CheckOffer(options, *description); !status.ok()) {
    return status;
  }
  Offer offer;
  for (const v1::VariantDescription& variant : description->variant()) {
    if (variant.chosen()) offer.variant = variant.name();
  }
  offer.description = *std::move(description);
  return offer;
}

absl::StatusOr<v1::DescribeReply> Connection::Describe(
    const std::string& program) {
  v1::ClientFrame frame;
  frame.mutable_describe()->set_program(program);
  return Take(channel_->Call(frame), &v1::ServerFrame::has_describe,
              &v1::ServerFrame::mutable_describe);
}

absl::StatusOr<v1::ExplainReply> Connection::Explain(
    const v1::ExplainRequest& request) {
  v1::ClientFrame frame;
  *frame.mutable_explain() = request;
  return Take(channel_->Call(frame), &v1::ServerFrame::has_explain,
              &v1::ServerFrame::mutable_explain);
}

absl::StatusOr<v1::MatrixReply> Connection::Matrix() {
  return ReadPages<v1::MatrixReply>([this](const v1::MatrixReply& so_far) {
    v1::ClientFrame frame;
    frame.mutable_matrix()->set_after(so_far.next());
    return Take(channel_->Call(frame), &v1::ServerFrame::has_matrix,
                &v1::ServerFrame::mutable_matrix);
  });
}

absl::StatusOr<v1::DenialsReply> Connection::Denials() {
  return ReadPages<v1::DenialsReply>([this](const v1::DenialsReply& so_far) {
    v1::ClientFrame frame;
    frame.mutable_denials()->set_after(so_far.next());
    return Take(channel_->Call(frame), &v1::ServerFrame::has_denials,
                &v1::ServerFrame::mutable_denials);
  });
}

absl::StatusOr<v1::StatusReply> Connection::Status() {
  v1::ClientFrame frame;
  frame.mutable_status();
  return Take(channel_->Call(frame), &v1::ServerFrame::has_status,
              &v1::ServerFrame::mutable_status);
}

absl::StatusOr<std::string> Connection::Metrics() {
  std::string text;
  auto all = ReadPages<v1::MetricsReply>([&](const v1::MetricsReply& so_far) {
    v1::ClientFrame frame;
    frame.mutable_metrics()->set_after(so_far.next());
    auto page = Take(channel_->Call(frame), &v1::ServerFrame::has_metrics,
                     &v1::ServerFrame::mutable_metrics);
    if (page.ok()) text += page->text();
    return page;
  });
  if (!all.ok()) return all.status();
  return text;
}

absl::StatusOr<v1::ActivityReply> Connection::Activity() {
  return ReadPages<v1::ActivityReply>([this](const v1::ActivityReply& so_far) {
    v1::ClientFrame frame;
    frame.mutable_activity()->set_after(so_far.next());
    return Take(channel_->Call(frame), &v1::ServerFrame::has_activity,
                &v1::ServerFrame::mutable_activity);
  });
}

absl::StatusOr<v1::RevokeReply> Connection::Revoke(
    const v1::RevokeRequest& request) {
  v1::ClientFrame frame;
  *frame.mutable_revoke() = request;
  return Take(channel_->Call(frame), &v1::ServerFrame::has_revoke,
              &v1::ServerFrame::mutable_revoke);
}

absl::StatusOr<v1::ReloadReply> Connection::Reload(bool enforce) {
  v1::ClientFrame frame;
  frame.mutable_reload()->set_enforce(enforce);
  return Take(channel_->Call(frame), &v1::ServerFrame::has_reload,
              &v1::ServerFrame::mutable_reload);
}

absl::Status Connection::Watch() {
  v1::ClientFrame frame;
  frame.mutable_watch();
  return channel_->Call(frame).status();
}

absl::Status Connection::Trace(uint64_t grant) {
  v1::ClientFrame frame;
  frame.mutable_trace()->set_grant(grant);
  return channel_->Call(frame).status();
}

absl::StatusOr<v1::TraceEvent> Connection::WaitTrace(
    std::chrono::milliseconds timeout) {
  return channel_->WaitTrace(Channel::Clock::now() + timeout);
}

void Connection::OnEvent(std::function<void(const v1::Event&)> callback) {
  channel_->OnEvent(std::move(callback));
}

int Connection::fd() const { return channel_->fd(); }

absl::Status Connection::ProcessEvents() { return channel_->Drain(); }

absl::StatusOr<v1::Event> Connection::WaitEvent(
    std::chrono::milliseconds timeout) {
  return channel_->WaitEvent(Channel::Clock::now() + timeout);
}

}  // namespace bpfgrant

// A client's connection to bpfgrantd: ask for programs, give them back, hear
// when they end.
//
//   auto connection = bpfgrant::Connection::Connect({});
//   auto grant = connection->Acquire({.program = "packet_sampler",
//                                     .interface = "packet_sampler/1"});
//
// The daemon knows the caller from the kernel: the process that connects is the
// session, its end is the session's end, and another process cannot use it (a
// child after fork(2) has to connect again). A process whose real and effective
// ids differ is known by its effective ones.
//
// One thread at a time may use a Connection and the Grants it gave. It must
// outlive neither: a Grant that outlives its Connection has ended.
//
// Every call waits for its answer, at most `Options::timeout`, and returns an
// absl::Status. A refusal carries a stable reason: ReasonOf in
// proto/refusal/refusal.h. kFailedPrecondition: in a child after fork(2).
// kUnavailable: the daemon cannot be reached or is gone; connect again.
// kDeadlineExceeded: it did not answer in time.

#ifndef BPFGRANT_CONNECTION_H_
#define BPFGRANT_CONNECTION_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/broker.pb.h"
#include "client/bpfgrant/grant.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

inline constexpr char kDefaultBrokerSocket[] = "/run/bpfgrant/broker.sock";
inline constexpr char kDefaultControlSocket[] = "/run/bpfgrant/control.sock";

class Channel;

class Connection {
 public:
  struct Options {
    std::string path = kDefaultBrokerSocket;
    std::chrono::milliseconds timeout{10'000};  // of each call
  };

  struct AcquireOptions {
    std::string program;
    std::string interface;       // "packet_sampler/1"
    std::string interface_hash;  // from the generated header; "": not checked
    // Map handles wanted, by name; none: all that the program offers.
    std::vector<std::string> handles;
    v1::Delivery delivery = v1::DELIVERY_PROGRAM;
    // For DELIVERY_ATTACH and DELIVERY_ANY: the socket, or the queue of a tun
    // device, to attach to. Remains the caller's.
    int target = -1;
    // For DELIVERY_RING: the ring to attach to, disabled as yet. Its number is
    // sent, not the fd; it has to stay open until the answer. Class Loop
    // (loop.h) does all of it.
    std::optional<int> ring = std::nullopt;
    // What is chosen of the program's parameters (parameter.h); all others are
    // their defaults.
    std::vector<v1::ParameterValue> parameters = {};
    // Parameters that are fds, by name. They remain the caller's.
    std::vector<std::pair<std::string, int>> files = {};
  };

  // Connects and opens the session. kUnavailable: nobody listens there.
  // kPermissionDenied: whoever listens there is not root.
  static absl::StatusOr<Connection> Connect(Options options);
  // The same over a connected SOCK_SEQPACKET socket, whoever is at its other
  // end; for tests and for programs that were passed one.
  static absl::StatusOr<Connection> FromSocket(UniqueFd socket,
                                               Options options);

  Connection(Connection&&) noexcept;
  Connection& operator=(Connection&&) noexcept;
  // Ends the session and with it every grant.
  ~Connection();

  // Who the daemon takes us for, and the token for calls over gRPC.
  const v1::HelloReply& session() const;

  // What Probe finds.
  struct Offer {
    // Of a program with variants the one that this kernel takes; else "".
    std::string variant;
    v1::DescribeReply description;
  };
  // Whether there is what `options` asks for, program, interface and handles,
  // without taking any of it. A quota may still be used up.
  //
  // A program that may be missing is asked for so once, at the start, and done
  // without if it is: which reason it is says until when.
  //   REASON_KERNEL_TOO_OLD, REASON_VERIFIER, REASON_LOAD_FAILED: until another
  //     kernel runs, or another program is installed.
  //   REASON_UNKNOWN_PROGRAM: there is none that the caller may have.
  //   REASON_INTERFACE_MISMATCH, REASON_UNKNOWN_HANDLE: there is another one.
  //   REASON_BUSY: until the daemon is reloaded, perhaps.
  //   The others are an administrator's mistake, told as in their log.
  absl::StatusOr<Offer> Probe(const AcquireOptions& options);

  absl::StatusOr<Grant> Acquire(const AcquireOptions& options);
  // Fetches the fds of a grant that was acquired over gRPC in this session.
  // `target` and `ring` as in AcquireOptions.
  absl::StatusOr<Grant> Claim(uint64_t grant, int target = -1,
                              std::optional<int> ring = std::nullopt);

  // All pages of them.
  absl::StatusOr<v1::ListReply> List();
  absl::StatusOr<v1::GrantsReply> Grants();
  absl::StatusOr<v1::DescribeReply> Describe(const std::string& program);
  absl::StatusOr<v1::ExplainReply> Explain(const v1::ExplainRequest& request);
  // For administrators; all pages of them.
  absl::StatusOr<v1::MatrixReply> Matrix();
  absl::StatusOr<v1::DenialsReply> Denials();
  absl::StatusOr<v1::StatusReply> Status();
  // All pages of it: OpenMetrics text.
  absl::StatusOr<std::string> Metrics();
  // For administrators; all pages of it.
  absl::StatusOr<v1::ActivityReply> Activity();
  absl::StatusOr<v1::RevokeReply> Revoke(const v1::RevokeRequest& request);
  // With `enforce`, what the new policy would not give ends.
  absl::StatusOr<v1::ReloadReply> Reload(bool enforce = false);

  // From now on events of others' grants come, too (as far as they may be
  // seen), not only the end of our own.
  absl::Status Watch();

  // For administrators: from now on what the loop of `grant` does comes, too,
  // for WaitTrace. One trace for each connection; it ends with the grant, of
  // which the last event tells.
  absl::Status Trace(uint64_t grant);
  // Waits for the next event of a trace. kDeadlineExceeded if none comes in
  // time. 1024 at most are kept meanwhile; the oldest make room, and the next
  // one counts them among `dropped`.
  absl::StatusOr<v1::TraceEvent> WaitTrace(std::chrono::milliseconds timeout);
  // Called from within ProcessEvents and every call that waits, for each event.
  // It must not use the connection. Without it events wait for WaitEvent, 1024
  // at most; the oldest make room.
  void OnEvent(std::function<void(const v1::Event&)> callback);
  // Becomes readable when there is something for ProcessEvents.
  int fd() const;
  // Takes what has come, without waiting: events are delivered, grants that
  // were ended say so from now on. kUnavailable: the daemon is gone, and every
  // grant has ended.
  absl::Status ProcessEvents();
  // Waits for the next event. kDeadlineExceeded if none comes in time.
  absl::StatusOr<v1::Event> WaitEvent(std::chrono::milliseconds timeout);

 private:
  explicit Connection(std::shared_ptr<Channel> channel);
  absl::StatusOr<Grant> Receive(v1::ClientFrame frame,
                                const std::vector<int>& fds);

  std::shared_ptr<Channel> channel_;
};

}  // namespace bpfgrant

#endif  // BPFGRANT_CONNECTION_H_

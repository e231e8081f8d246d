// The client's end of broker.sock: requests, replies, and the events between
// them. What Connection and Grant share.

#ifndef CLIENT_CHANNEL_H_
#define CLIENT_CHANNEL_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/broker.pb.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

class Channel {
 public:
  using Clock = std::chrono::steady_clock;
  struct Reply {
    v1::ServerFrame frame;
    std::vector<UniqueFd> fds;
  };

  Channel(UniqueFd socket, std::chrono::milliseconds timeout);

  // Says Hello, answers the challenge if one comes.
  absl::Status Open();
  const v1::HelloReply& session() const { return session_; }

  // Sends `frame` (its id is filled in) with `fds` and waits for its reply; a
  // refusal is returned as a status. Late replies to earlier requests are
  // dropped, fds and all. The daemon may take `patience` longer than usual.
  absl::StatusOr<Reply> Call(
      v1::ClientFrame& frame, absl::Span<const int> fds = {},
      std::chrono::milliseconds patience = std::chrono::milliseconds(0));
  // Gives a grant back without waiting: now if the daemon's queue has room,
  // else with one of the next calls.
  void ReleaseSoon(uint64_t grant);

  // Takes what is there; waits for at most one event if `until` is given.
  absl::Status Drain();
  absl::StatusOr<v1::Event> WaitEvent(Clock::time_point until);
  // Likewise for what a traced loop does; the oldest make room, too.
  absl::StatusOr<v1::TraceEvent> WaitTrace(Clock::time_point until);

  // Without a callback events wait for WaitEvent, kMaxKeptEvents at most; the
  // oldest make room.
  void OnEvent(std::function<void(const v1::Event&)> callback) {
    on_event_ = std::move(callback);
  }

  // A grant that is live until an event, Forget or the end says otherwise.
  void Remember(uint64_t grant);
  void Forget(uint64_t grant) { grants_.erase(grant); }
  // Unspecified while it lives.
  v1::Reason EndOf(uint64_t grant) const;

  // Ends the session, and with it every grant.
  void Close() { Gone().IgnoreError(); }
  int fd() const { return socket_.get(); }

 private:
  // A request that was sent and not answered yet.
  struct Request {
    std::string bytes;
    std::vector<int> fds;  // the caller's
  };

  absl::Status Send(v1::ClientFrame& frame, absl::Span<const int> fds,
                    Clock::time_point until);
  absl::Status SendBytes(const Request& request, Clock::time_point until);
  // The daemon was restarted, and what it had not answered is lost: it is sent
  // again.
  void OnResumed(const v1::Resumed& resumed);
  // The next packet that is not an event.
  absl::StatusOr<Reply> Receive(Clock::time_point until);
  absl::StatusOr<Reply> ReceiveOne();
  // What came for nobody: a grant in it is given back.
  void Discard(const Reply& reply);
  void SendReleases();
  // The end, or why the daemon turned us away before it hung up.
  absl::Status GoneBecause();
  absl::Status Wait(short events, Clock::time_point until);
  void Deliver(const v1::Event& event);
  // Takes what the daemon says unasked; false: it is something else.
  bool TakeUnasked(const v1::ServerFrame& frame);
  absl::Status Gone();

  UniqueFd socket_;
  // A child after fork(2) has this object, and is not this session.
  const pid_t owner_;
  std::chrono::milliseconds timeout_;
  std::vector<char> buffer_;
  uint64_t last_request_ = 0;
  std::map<uint64_t, Request> unanswered_;  // by number
  v1::HelloReply session_;
  std::function<void(const v1::Event&)> on_event_;
  // Why each grant ended; unspecified: it lives.
  absl::flat_hash_map<uint64_t, v1::Reason> grants_;
  std::deque<v1::Event> events_;
  std::deque<v1::TraceEvent> traces_;
  std::deque<uint64_t> releases_;
  bool opening_ = false;
};

}  // namespace bpfgrant

#endif  // CLIENT_CHANNEL_H_

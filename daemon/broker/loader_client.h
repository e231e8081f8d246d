// The broker's end of the socketpair to the loader: requests go out, replies
// come back in any order, nobody waits.

#ifndef DAEMON_BROKER_LOADER_CLIENT_H_
#define DAEMON_BROKER_LOADER_CLIENT_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/broker/event_loop.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

// Between the loader's deadline for what clients can hold up and ours.
inline constexpr std::chrono::milliseconds kAttachGrace{500};

// CLOCK_MONOTONIC so long from now, for the loader.
int64_t MonotonicNs(std::chrono::milliseconds from_now);

class LoaderClient {
 public:
  struct Reply {
    daemon::LoaderReply message;
    std::vector<UniqueFd> fds;
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<Reply>)>;

  // `lost` is called once when the loader is gone or speaks nonsense; nothing
  // more is answered then.
  LoaderClient(EventLoop& loop, UniqueFd socket, std::function<void()> lost);

  // Waits for the loader's first message, with catalog and policy. Before the
  // loop runs. A refusal if the loader could not begin.
  absl::StatusOr<Reply> WaitReady(std::chrono::milliseconds deadline);
  // From then on replies are taken as they come.
  void Start();

  // Sends `request` (its id is filled in) with `fds`, and calls `done` exactly
  // once: with the reply, with the loader's refusal, or with REASON_BUSY when
  // `deadline` has passed. A reply that comes later is dropped, fds and all.
  void Send(daemon::LoaderRequest request, std::vector<UniqueFd> fds,
            std::chrono::milliseconds deadline, Done done);

  // Answers everything under way with REASON_DAEMON_STOPPED.
  void Abandon();

  // Requests on their way.
  size_t pending() const { return pending_.size(); }

 private:
  struct Pending {
    Done done;
    EventLoop::Source deadline;
  };
  struct Outgoing {
    std::string bytes;
    std::vector<UniqueFd> fds;
  };

  absl::StatusOr<Reply> Receive();
  void OnEvents(uint32_t events);
  void Flush();
  void Finish(uint64_t id, absl::StatusOr<Reply> reply);
  void Lose();

  EventLoop& loop_;
  UniqueFd socket_;
  std::function<void()> lost_;
  std::vector<char> buffer_;
  EventLoop::Source source_;
  uint64_t next_id_ = 1;
  absl::flat_hash_map<uint64_t, Pending> pending_;
  std::deque<Outgoing> outgoing_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_LOADER_CLIENT_H_

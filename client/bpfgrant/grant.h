// What a session holds of a program: its fds, until it gives them back.

#ifndef BPFGRANT_GRANT_H_
#define BPFGRANT_GRANT_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/messages.pb.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant {

class Channel;

class Grant {
 public:
  // One fd and what it is.
  struct Handle {
    v1::Handle description;
    UniqueFd fd;  // close-on-exec
  };

  Grant(Grant&&) noexcept;
  Grant& operator=(Grant&&) noexcept;
  // Releases it, if it has not ended and its connection still lives, and closes
  // its fds. Does not wait for the daemon's answer.
  ~Grant();

  uint64_t id() const { return id_; }
  // PROGRAM: the program's fd is here. ATTACH: the daemon attached it to what
  // came with the request, and locked that if it was a socket. RING: it
  // attached the loop to the ring that the request named, and restricted that;
  // among the handles is the array `status`, one struct bpfgrant_loop_status
  // (bpfgrant/loop_status.h) to be mapped. PROCESS: the program serves this
  // process, all its threads, until the grant ends.
  v1::Delivery delivery() const { return delivery_; }
  const std::string& interface_hash() const { return interface_hash_; }

  // kNotFound if the grant came without a handle of that name. Owned by the
  // grant.
  absl::StatusOr<const Handle*> Find(const std::string& name) const;
  const std::vector<Handle>& handles() const { return handles_; }
  // The program's fd; -1 with any other delivery than PROGRAM.
  int program_fd() const;

  // Whether it was taken back, or its session is over. Known once the
  // connection has processed its events.
  bool ended() const;
  // Why; unspecified while it has not ended.
  v1::Reason end_reason() const;

  // Turns swappable maps over (SwappableMap), all at once; `maps` are their
  // names, each once. When it returns, runs of the program see the other ones,
  // and no run has an old one any more. What runs see now, in the order of
  // `maps`: "NAME.0" or "NAME.1".
  // REASON_STILL_READ (kDeadlineExceeded): they are turned over, but a run of
  // before was under way at the deadline and may have the old ones; until a
  // call without names, which waits on, returns OK, those are to be left alone.
  // Each other error changed nothing. `deadline` is at most a minute.
  absl::StatusOr<std::vector<std::string>> Rotate(
      const std::vector<std::string>& maps,
      std::chrono::milliseconds deadline = std::chrono::seconds(2));

  // Gives it back and waits for the daemon to say so: its gate is closed then.
  // The fds are closed. Once only.
  absl::Status Release();
  // Likewise, and waits, `patience` longer at most, until the kernel has
  // nothing of it any more: then its memory is free and it counts against no
  // quota. REASON_STILL_HELD, with one thing that is left, if a copy of an fd,
  // a mapping (RingBuffer, MappedArray), an attachment or a pin outlives that;
  // the call may be made again then. REASON_KERNEL_TOO_OLD: the daemon cannot
  // tell there; the fds are closed, and Release is what is left to do. Ten
  // minutes at most.
  absl::Status ReleaseAndWait(std::chrono::milliseconds patience);

 private:
  friend class Connection;
  Grant(std::shared_ptr<Channel> channel, const v1::AcquireReply& reply,
        std::vector<UniqueFd> fds);

  std::shared_ptr<Channel> channel_;
  uint64_t id_ = 0;
  v1::Delivery delivery_ = v1::DELIVERY_ANY;
  std::string interface_hash_;
  std::vector<Handle> handles_;
};

}  // namespace bpfgrant

#endif  // BPFGRANT_GRANT_H_

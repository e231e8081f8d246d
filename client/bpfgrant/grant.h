// What a session holds of a program: its fds, until it gives them back.

#ifndef BPFGRANT_GRANT_H_
#define BPFGRANT_GRANT_H_

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
  // PROGRAM: the program's fd is here. ATTACH: the daemon attached it to the
  // socket that came with the request, and locked that. RING: it attached the
  // loop to the ring that the request named, and restricted that; among the
  // handles is the array `status`, one struct bpfgrant_loop_status
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

  // Gives it back and waits for the daemon to say so: its gate is closed then.
  // The fds are closed. Once only.
  absl::Status Release();

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

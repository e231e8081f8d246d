// A client that can misbehave in every way that the kernel lets it, and can be
// polite too.
//
// Everything that waits has a deadline; a test that gets no answer fails, it
// does not hang.

#ifndef TESTS_WIRE_RAW_PEER_H_
#define TESTS_WIRE_RAW_PEER_H_

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "bpfgrant/v1/broker.pb.h"
#include "proto/wire/message_socket.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker_test {

// How long a peer waits for what must come: long, for loaded machines. Tests
// that pass never wait for it.
inline constexpr std::chrono::milliseconds kPatience{20'000};

// Control data, as hostile as it gets.
class Control {
 public:
  Control& Rights(absl::Span<const int> fds);
  Control& From(const Credentials& credentials);
  Control& Raw(int level, int type, std::string_view data);
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

struct User {
  uid_t uid;
  gid_t gid;
};
// Who this process is.
User Self();
// Somebody who is not an administrator: the process itself, or nobody if it is
// root.
User Ordinary();

class RawPeer {
 public:
  struct Received {
    enum class What { kFrame, kClosed, kNothing } what;
    v1::ServerFrame frame;
    std::vector<UniqueFd> fds;
    bool truncated = false;  // MSG_CTRUNC

    bool closed() const { return what == What::kClosed; }
    // Unspecified if the frame is not a refusal.
    v1::Reason reason() const { return frame.refusal().reason(); }
  };

  RawPeer() = default;
  // Connects to the abstract `address` as `user`: as anybody but itself it
  // needs root, and then names that user in each packet.
  explicit RawPeer(const std::string& address, User user = Ordinary());

  bool connected() const { return socket_.valid(); }
  int fd() const { return socket_.get(); }
  void Close() { socket_.reset(); }

  // sendmsg(2); 0 or its errno. Waits until there is room.
  int Send(std::string_view bytes, absl::Span<const int> fds = {});
  int SendWith(std::string_view bytes, const Control& control);
  // The same without waiting: EAGAIN when the queue is full.
  int TrySend(std::string_view bytes);

  // Gives the frame the next number, unless it has one, and sends it.
  int Send(v1::ClientFrame frame, absl::Span<const int> fds = {});
  int TrySend(v1::ClientFrame frame);

  Received Receive(std::chrono::milliseconds patience = kPatience,
                   size_t control_bytes = 2048);
  // Skips events of the daemon's own.
  Received ReceiveReply();
  // Whether the daemon closes, or has closed, the connection; skips frames.
  bool SeesEnd(std::chrono::milliseconds patience = kPatience);

  // Send and ReceiveReply.
  Received Call(v1::ClientFrame frame, absl::Span<const int> fds = {});
  Received Hello();
  Received Acquire(const std::string& program = "sampler");
  // What the Hello was answered with.
  const v1::HelloReply& hello() const { return hello_; }
  uint64_t last_request() const { return last_request_; }

 private:
  int SendMessage(std::string_view bytes, std::string_view control, int flags);
  std::string Prepare(v1::ClientFrame& frame);

  UniqueFd socket_;
  std::optional<Credentials> says_;  // in each packet
  uint64_t last_request_ = 0;
  v1::HelloReply hello_;
};

// A frame of each kind, filled in so that it is valid but for its moment.
v1::ClientFrame HelloFrame();
v1::ClientFrame AcquireFrame(const std::string& program = "sampler");

}  // namespace bpfgrant::broker_test

#endif  // TESTS_WIRE_RAW_PEER_H_

// broker.sock by hand, as broker.proto has it: with recvmsg, sendmsg and
// generated messages, and nothing of the library.

#ifndef TESTS_PRIVILEGED_CLIENT_BROKER_SOCKET_H_
#define TESTS_PRIVILEGED_CLIENT_BROKER_SOCKET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "bpfgrant/v1/broker.pb.h"

namespace bpfgrant::test {

// Says what failed, with its errno, and exits.
[[noreturn]] void Fail(const char* what);

class BrokerSocket {
 public:
  // Connects and says Hello.
  explicit BrokerSocket(const std::string& path);
  ~BrokerSocket() { Close(); }
  BrokerSocket(const BrokerSocket&) = delete;
  BrokerSocket& operator=(const BrokerSocket&) = delete;
  // Ends the session.
  void Close();

  // The reply to `frame`, which is numbered here.
  v1::ServerFrame Call(v1::ClientFrame& frame);

  const std::string& token() const { return token_; }
  // What came beside the last reply.
  const std::vector<int>& fds() const { return fds_; }

 private:
  // Numbers `frame`, sends it, and returns the number.
  uint64_t Send(v1::ClientFrame& frame);
  v1::ServerFrame Receive();

  int socket_;
  uint64_t request_ = 0;
  std::string token_;
  std::vector<int> fds_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_CLIENT_BROKER_SOCKET_H_

// A test that is a client: it starts the daemon as root and executes itself as
// nobody, for this one case, which is what reports.
//
//   class SamplerTest : public bpfgrant::test::NobodyTest {
//    protected:
//     SamplerTest() : NobodyTest({.policy = kAllowAll}) {}
//   };
//
//   TEST_F(SamplerTest, Samples) {
//     BPFGRANT_AS_NOBODY();
//     auto grant = connection().Acquire(...);
//
// With BPFGRANT_AS_NOBODY the process that is root leaves the test.

#ifndef TESTS_HARNESS_AS_NOBODY_H_
#define TESTS_HARNESS_AS_NOBODY_H_

#include <memory>
#include <string>
#include <utility>

#include "client/bpfgrant/connection.h"
#include "gtest/gtest.h"
#include "tests/harness/daemon_fixture.h"

namespace bpfgrant::test {

// The socket of the daemon that the process which is root has started; null in
// that process.
const char* SocketForNobody();

// Executes the test case under way as nobody, with the daemon of that broker
// socket. A failure of the test if that one fails.
void RunThisTestAsNobody(const std::string& broker_socket);

class NobodyTest : public ::testing::Test {
 protected:
  explicit NobodyTest(DaemonOptions options) : options_(std::move(options)) {}

  void SetUp() override;
  // As root, when the daemon runs and before the client does.
  virtual void Prepare(Daemon&) {}

  bool IsNobody() const { return SocketForNobody() != nullptr; }
  Connection& connection() { return *connection_; }

 private:
  const DaemonOptions options_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace bpfgrant::test

#define BPFGRANT_AS_NOBODY() \
  if (!IsNobody()) return

#endif  // TESTS_HARNESS_AS_NOBODY_H_

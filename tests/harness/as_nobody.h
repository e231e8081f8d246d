// A test that is a client: as root it executes itself as nobody, for this one
// case, and reports what came of that. The daemon, which has one program of the
// catalog and allows everyone everything, is one of its own, or under CTest the
// one that bpfgrant_share_daemon (tests/CMakeLists.txt) has started.
//
//   class SamplerTest : public bpfgrant::test::NobodyTest {
//    protected:
//     SamplerTest() : NobodyTest("packet_sampler") {}
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
#include <vector>

#include "client/bpfgrant/connection.h"
#include "gtest/gtest.h"

namespace bpfgrant::test {

// The broker's socket; null in the process that is root.
const char* SocketForNobody();

// Executes the test case under way as nobody, with these fds under these
// numbers. A failure of the test if that one fails. With a policy, or with
// defences switched off (daemon/mitigations.h), it has a daemon of its own.
void RunThisTestAsNobody(const std::string& program,
                         const std::vector<std::pair<int, int>>& fds = {},
                         const std::string& policy = "",
                         const std::vector<std::string>& without = {});

class NobodyTest : public ::testing::Test {
 protected:
  explicit NobodyTest(std::string program) : program_(std::move(program)) {}

  void SetUp() override;
  // Called as root: ours, and its number there.
  virtual std::vector<std::pair<int, int>> FdsForNobody() { return {}; }
  // The policy's text; empty: everyone may have everything, and is trusted.
  virtual std::string Policy() { return ""; }
  // Which defences are off: for the twins.
  virtual std::vector<std::string> Without() { return {}; }

  bool IsNobody() const { return SocketForNobody() != nullptr; }
  Connection& connection() { return *connection_; }

 private:
  const std::string program_;
  std::unique_ptr<Connection> connection_;
};

}  // namespace bpfgrant::test

#define BPFGRANT_AS_NOBODY() \
  if (!IsNobody()) return

#endif  // TESTS_HARNESS_AS_NOBODY_H_

// A daemon whose catalog has `puppet`, and clients with rings.

#ifndef TESTS_LOOP_ATTACH_ATTACH_FIXTURE_H_
#define TESTS_LOOP_ATTACH_ATTACH_FIXTURE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "bpfgrant/loop_status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/wire/limits.h"
#include "tests/loop/attach/puppet.h"
#include "tests/privileged/client_fixture.h"
#include "tests/privileged/nobody.h"

namespace bpfgrant::test {

class AttachTest : public ClientTest {
 protected:
  // Starts the daemon, less some defences. Skips where the kernel has no
  // loops. Use as BPFGRANT_START(...).
  void Begin(const std::vector<std::string>& without, bool store = false);
  // One more: "foreign" or "sharer".
  void AddProgram(const std::string& name);
  // At the end nothing must be left: no grant, no gate, no child of the
  // loader's, no fd.
  void TearDown() override;

  // Makes a ring and its memory; returns its number among the client's fds.
  std::string MakeRing(Nobody& client, const std::string& how = "128 256");
  // All of it, for ring 0: connected, made, attached, enabled.
  void MakeLoop(Nobody& client, int mode = PUPPET_SUBMIT, int count = 1);
  // Does not look at what is left: for tests that leave the daemon in pieces.
  void LeaveIt() { leave_ = true; }

 private:
  bool leave_ = false;
  Resting before_;
};

#define BPFGRANT_START(...)                      \
  ASSERT_NO_FATAL_FAILURE(Begin({__VA_ARGS__})); \
  if (IsSkipped()) return

#define BPFGRANT_START_WITH_STORE()                   \
  ASSERT_NO_FATAL_FAILURE(Begin({}, /*store=*/true)); \
  if (IsSkipped()) return

}  // namespace bpfgrant::test

#endif  // TESTS_LOOP_ATTACH_ATTACH_FIXTURE_H_

// A real daemon, an unprivileged client of it, and root's own connection, which
// is the administrator's and sees what is left.

#ifndef TESTS_PRIVILEGED_CLIENT_FIXTURE_H_
#define TESTS_PRIVILEGED_CLIENT_FIXTURE_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/bpfgrant/connection.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/kernel_objects.h"
#include "tests/privileged/nobody.h"

namespace bpfgrant::test {

// How long a test waits for what must come; what passes never waits so long.
inline constexpr std::chrono::milliseconds kPatience{20'000};

// What the daemon holds when nobody holds anything of it.
struct Resting {
  size_t broker_fds = 0;
  size_t loader_fds = 0;
  uint32_t gate_slots_used = 0;
  uint32_t sessions = 0;
  bool operator==(const Resting&) const = default;
};

class ClientTest : public DaemonTest {
 protected:
  void TearDown() override;

  // Starts the daemon, with everything allowed unless `options` has a policy,
  // and connects the administrator. Use with ASSERT_NO_FATAL_FAILURE.
  void Start(DaemonOptions options = {});
  // The same with defences switched off: for the twins.
  void StartWithout(const std::vector<std::string>& mitigations);

  // Root's connection.
  Connection& administrator() { return *administrator_; }
  // Tells `client` to connect.
  void Connect(Nobody& client);

  v1::StatusReply Status();
  // By program, grant and so on: as the request says. How many gates it closed;
  // fails the test if a run was under way.
  uint32_t Revoke(const v1::RevokeRequest& request);
  uint32_t RevokeGrant(uint64_t grant);

  // Waits until no grant is left and the pool is full again.
  void WaitUntilIdle();
  // WaitUntilIdle, and what the daemon holds then.
  Resting Rest();
  // That the daemon comes to rest as it did before.
  void ExpectRestsAs(const Resting& before);
  // That these objects of the kernel go away.
  void ExpectGone(const KernelObjects& objects);

  // Adds a catalog entry `name` that is packet_sampler with `from` in its
  // manifest replaced by `to`, and reloads.
  void AddSampler(const std::string& name, const std::string& from,
                  const std::string& to);
  // One that drops what comes once it is revoked.
  void AddDroppingSampler(const std::string& name) {
    AddSampler(name, "on_revoke: PASS", "on_revoke: DROP");
  }

 private:
  std::optional<Connection> administrator_;
};

// The programs and maps that a process holds by fds.
KernelObjects HeldBy(pid_t process);

// Has `client`, which holds grant 0 with its program's fd, run the program at
// will for about `time`, without waiting for it: fetch the answer to "run".
void BeginLongRun(Nobody& client, std::chrono::milliseconds time);

// Whether a packet_sampler does anything: runs the program once and looks
// whether its counters move. By the kernel's ids, so that it works for whoever
// holds it. Needs CAP_SYS_ADMIN.
class SamplerProbe {
 public:
  // Takes fds of both, which keep them alive: drop it before ExpectGone.
  explicit SamplerProbe(const Acquired& acquired);
  bool Runs() const;

 private:
  uint64_t Seen() const;
  UniqueFd program_, counters_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_CLIENT_FIXTURE_H_

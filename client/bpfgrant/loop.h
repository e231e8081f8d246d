// An io_uring loop: an approved program that drives a ring of the caller's, in
// the kernel where that can be (Linux 7.1), or its native twin in this process
// where the caller allows it.
//
//   auto loop = bpfgrant::Loop::Create(connection, {
//       .program = "chain", .interface = "chain/1",
//       .native = &bpfgrant_native_chain});
//   new (loop->memory().data()) chain_memory{...};
//   auto stop = loop->Run({});
//   if (stop->why == BPFGRANT_STOP_DONE) ...
//
// The ring is the loop's: it can do what the manifest lists and nothing else.
// One thread runs a loop, always the same one, the one that called Create (the
// ring is made with IORING_SETUP_SINGLE_ISSUER); Wake may be called from any.
// Once the loop is made, the connection is needed for nothing but to stay open:
// its end is the grant's.

#ifndef BPFGRANT_LOOP_CLIENT_H_
#define BPFGRANT_LOOP_CLIENT_H_

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/loop_native.h"
#include "bpfgrant/loop_status.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/grant.h"
#include "client/bpfgrant/ring_buffer.h"

// Names a loop's native twin, which is C: BPFGRANT_NATIVE_LOOP(chain); at file
// scope, outside of any namespace, declares bpfgrant_native_chain.
#define BPFGRANT_NATIVE_LOOP(name) \
  extern "C" const bpfgrant_native_loop bpfgrant_native_##name

namespace bpfgrant {

class LoopPlace;

class Loop {
 public:
  enum class Place { kKernel, kProcess };
  enum class Where {
    kKernelOnly,         // or an error
    kKernelElseProcess,  // Loop::place() says which it was, place_reason() why
    kProcessOnly,        // asks the daemon for nothing
  };

  struct Options {
    std::string program;
    std::string interface;       // "chain/1"
    std::string interface_hash;  // from the generated header; "": not checked
    Where where = Where::kKernelOnly;
    // The twin, for kProcess*. Owned by the caller; static as a rule.
    const bpfgrant_native_loop* native = nullptr;
    // The ring's geometry and memory come from the program's description. Where
    // it runs in the process and the daemon cannot be asked, from here; the
    // generated header of the program has them.
    uint32_t sq_entries = 64;
    uint32_t cq_entries = 128;
    size_t memory_bytes = 0;
    uint32_t step_budget = 65536;
    // Memory to register instead of the library's own: page-aligned, at least
    // the description's memory_bytes long. Remains the caller's. In the kernel
    // it is pinned and counts towards RLIMIT_MEMLOCK, as the library's own
    // does.
    absl::Span<std::byte> memory;
    // Registered with the ring before it is enabled. Remain the caller's.
    std::vector<iovec> buffers;
    std::vector<int> files;
  };

  // Makes the ring, registers memory, buffers and files, acquires the program,
  // and enables the ring. A refusal carries the daemon's reason. With
  // kProcessOnly `connection` may be null.
  //
  // kInvalidArgument: the options contradict themselves or the description.
  // kInternal: a system call failed, with its errno; it may be a limit.
  // kKernelElseProcess takes neither as the end of it: whatever kept the loop
  // out of the kernel is place_reason(). The status is that of the process,
  // and names both, only if that is impossible, too.
  static absl::StatusOr<Loop> Create(Connection* connection, Options options);

  Loop(Loop&&) noexcept;
  Loop& operator=(Loop&&) noexcept;
  // Gives the grant back and closes the ring, which cancels its requests.
  ~Loop();

  Place place() const;
  // Why it is not in the kernel; "" if it is.
  const std::string& place_reason() const;

  // The memory that the loop sees. Zero at first, if it is the library's.
  absl::Span<std::byte> memory();
  template <typename T>
  T* memory_as() {
    return memory().size() >= sizeof(T) ? reinterpret_cast<T*>(memory().data())
                                        : nullptr;
  }

  struct Stop {
    enum class Cause {
      kLoop,  // the loop itself: `why` and `detail`
      // A signal; run it again. One that comes while the loop does not run, or
      // in the process between two calls of io_uring_enter(2), is not noticed:
      // use Wake from a thread that waits for the signal.
      kInterrupted,
      kDeadline,  // RunOptions::deadline
      // The grant ended: Grant::end_reason says why, once the connection has
      // processed its events. `why` is BPFGRANT_STOP_REVOKED if it was the gate
      // that stopped it, and BPFGRANT_STOP_NONE if the loop was detached.
      kDetached,
    };
    Cause cause = Cause::kLoop;
    uint32_t why = BPFGRANT_STOP_NONE;  // enum bpfgrant_stop
    int32_t detail = 0;
  };
  // "the loop is done", "a signal", ...
  static std::string Describe(const Stop& stop);

  struct RunOptions {
    // Works while the loop sleeps, too. One that has passed already stops it
    // before the first step.
    std::optional<std::chrono::steady_clock::time_point> deadline;
    // With false it stops with BPFGRANT_STOP_IDLE rather than sleep: for use
    // beside epoll(7), with event_fd().
    bool wait = true;
    // Enter again by itself after BPFGRANT_STOP_BUDGET.
    bool through_budget = true;
  };
  // Runs it until it stops. Can be called again, whatever the cause was but
  // kDetached: then it answers that again. kFailedPrecondition: another thread
  // than the one that called Create. kInternal: the system call failed
  // otherwise.
  absl::StatusOr<Stop> Run(const RunOptions& options);

  // Has a run under way, or the next one, stop with BPFGRANT_STOP_WOKEN and
  // `detail`. From any thread; not from a signal handler.
  //
  // Each call stops exactly one run, in their order: a wake that comes when the
  // loop has just stopped by itself is kept, and the next Run stops with it
  // before its first step. A run woken by nobody's Wake (what its ring still
  // held of an earlier run's wake or deadline) does not stop. In the kernel a
  // loop that waits for several completions sees the wake when it has taken
  // those that came before.
  absl::Status Wake(int32_t detail);

  // Readable when completions, or a wake, came while the loop did not run: poll
  // it, read it (8 bytes), then Run with `wait` false. Poll only after a stop
  // with BPFGRANT_STOP_IDLE: after any other there may be something left that
  // was signalled before, or never was, since a run that waits signals nothing.
  // It may be readable with nothing there, and a call that waits for it may be
  // interrupted (EINTR) by what the kernel does for the ring.
  int event_fd() const;

  // Completions that the loop left for user space (BPFGRANT_STOP_PASSED): the
  // next one, or nullptr; and that it was taken. Between runs only.
  const io_uring_cqe* PeekCompletion();
  void SeenCompletion();

  // What it counted so far. Steps, completions and requests.
  const bpfgrant_loop_status& status() const;
  // Calls of io_uring_enter(2) so far.
  uint64_t enters() const;
  // What the loop emits (BPFGRANT_EVENTS), in either place: the grant's handle
  // `events`, or the process's own ring. Must not outlive the loop; one reader.
  // Any thread may read it while the loop runs. kNotFound: it has no events.
  absl::StatusOr<RingBuffer> Events();
  // The grant, with the program's handles; nullptr in the process.
  Grant* grant();
  // The ring's number among this process's fds.
  int ring_fd() const;
  // IORING_SETUP_* that the ring was made with. In the process an older kernel
  // leaves some of them out: DEFER_TASKRUN and SINGLE_ISSUER before Linux 6.1.
  uint32_t setup_flags() const;
  // In the process: what the step works on; for tests and benches. nullptr in
  // the kernel.
  bpfgrant_loop* native();

 private:
  explicit Loop(std::unique_ptr<LoopPlace> place);
  std::unique_ptr<LoopPlace> place_;
};

}  // namespace bpfgrant

#endif  // BPFGRANT_LOOP_CLIENT_H_

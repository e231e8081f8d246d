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

#ifndef BPFGRANT_LOOP_CLIENT_H_
#define BPFGRANT_LOOP_CLIENT_H_

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

namespace bpfgrant {

class Loop {
 public:
  enum class Place { kKernel, kProcess };
  enum class Where {
    kKernelOnly,        // or an error
    kKernelElseProcess, // Loop::place() says which it was, place_reason() why
    kProcessOnly,       // asks the daemon for nothing
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
    // Memory to register instead of the library's own: page-aligned, at least
    // the description's memory_bytes long. Remains the caller's.
    absl::Span<std::byte> memory;
    // Registered with the ring before it is enabled. Remain the caller's.
    std::vector<iovec> buffers;
    std::vector<int> files;
  };

  // Makes the ring, registers memory, buffers and files, acquires the program,
  // and enables the ring. A refusal carries the daemon's reason. With
  // kProcessOnly `connection` may be null.
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
      kLoop,         // the loop itself: `why` and `detail`
      kInterrupted,  // a signal; run it again
      kDeadline,     // RunOptions::deadline
      kDetached,     // the grant ended: Grant::end_reason says why
    };
    Cause cause = Cause::kLoop;
    uint32_t why = BPFGRANT_STOP_NONE;  // enum bpfgrant_stop
    int32_t detail = 0;
  };
  // "the loop is done", "a signal", ...
  static std::string Describe(const Stop& stop);

  struct RunOptions {
    std::optional<std::chrono::steady_clock::time_point> deadline;
    // With false it stops with BPFGRANT_STOP_IDLE rather than sleep: for use
    // beside epoll(7), with event_fd().
    bool wait = true;
    // Enter again by itself after BPFGRANT_STOP_BUDGET.
    bool through_budget = true;
  };
  // Runs it until it stops. Can be called again, whatever the cause was but
  // kDetached. An error only if the system call itself failed otherwise.
  absl::StatusOr<Stop> Run(const RunOptions& options);

  // Has a run under way, or the next one, stop with BPFGRANT_STOP_WOKEN and
  // `detail`. From any thread; not from a signal handler.
  absl::Status Wake(int32_t detail);

  // Readable when completions came while the loop did not run: poll it, read
  // it (8 bytes), then Run with `wait` false.
  int event_fd() const;

  // Completions that the loop left for user space (BPFGRANT_STOP_PASSED): the
  // next one, or nullptr; and that it was taken.
  const io_uring_cqe* PeekCompletion();
  void SeenCompletion();

  // What it counted so far. Steps, completions and requests.
  const bpfgrant_loop_status& status() const;
  // Calls of io_uring_enter(2) so far.
  uint64_t enters() const;
  // The grant, with the program's handles; nullptr in the process.
  Grant* grant();
  // The ring's number among this process's fds.
  int ring_fd() const;
  // In the process: what the step works on; for tests and benches. nullptr in
  // the kernel.
  bpfgrant_loop* native();

 private:
  class Impl;
  explicit Loop(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bpfgrant

#endif  // BPFGRANT_LOOP_CLIENT_H_

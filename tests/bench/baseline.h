// What the daemon is measured against: the least that passing fds can cost, and
// a process with privilege that loads the same object itself.

#ifndef TESTS_BENCH_BASELINE_H_
#define TESTS_BENCH_BASELINE_H_

#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <string>

#include "tests/bench/samples.h"

namespace bpfgrant::bench {

// Round trips over SOCK_SEQPACKET to another process, which answers each packet
// with `reply_bytes` bytes and `fds` fds: one poll, receive and send on each
// side, as little else as can be. With a pause before each, both are asleep
// when it begins, as they are between the requests of real clients.
Samples RawRoundTrips(size_t rounds, size_t fds, size_t reply_bytes,
                      useconds_t pause_microseconds = 0);

// bpf_object__open_mem and bpf_object__load of the object, in this process.
Samples LoadsByRoot(const std::filesystem::path& object, size_t rounds);

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_BASELINE_H_

// Requests that depend on each other's results: the loop chain against what one
// would write by hand.

#ifndef TESTS_BENCH_LOOPS_CHAIN_BENCH_H_
#define TESTS_BENCH_LOOPS_CHAIN_BENCH_H_

#include "client/bpfgrant/connection.h"

namespace bpfgrant::bench {

// Prints its tables. `connection` null: without the loop in the kernel. Its
// files are made in /scratch if there is one, which is an ext4 in tests/vm, and
// else where temporary ones are: tmpfs cannot read without blocking, and all
// ways are the same there.
void BenchChain(Connection* connection);

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_CHAIN_BENCH_H_

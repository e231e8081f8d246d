// Relayed bytes: the loop relay against what one would write by hand.

#ifndef TESTS_BENCH_LOOPS_RELAY_BENCH_H_
#define TESTS_BENCH_LOOPS_RELAY_BENCH_H_

#include "client/bpfgrant/connection.h"

namespace bpfgrant::bench {

// Prints its tables. `connection` null: without the loop in the kernel.
void BenchRelay(Connection* connection);

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_RELAY_BENCH_H_

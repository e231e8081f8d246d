#ifndef TESTS_BENCH_LOOPS_NOP_BENCH_H_
#define TESTS_BENCH_LOOPS_NOP_BENCH_H_

#include "client/bpfgrant/connection.h"

namespace bpfgrant::bench {

// NOPs, each submitted when the last one has completed: what there is to gain
// where requests cost nothing, and what entry and library cost. The connection
// is null where the kernel has no loops.
void BenchNop(Connection* connection);

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_NOP_BENCH_H_

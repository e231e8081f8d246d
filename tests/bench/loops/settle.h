// The daemon at rest.

#ifndef TESTS_BENCH_LOOPS_SETTLE_H_
#define TESTS_BENCH_LOOPS_SETTLE_H_

#include "client/bpfgrant/connection.h"

namespace bpfgrant::bench {

// Waits until the daemon has all instances ready that it keeps: it loads them
// in the background, which would be measured, too. Null: at once.
void Settle(Connection* connection);

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_SETTLE_H_

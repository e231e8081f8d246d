// Copied files: the loop file_copy against what one would write by hand.

#ifndef TESTS_BENCH_LOOPS_FILE_COPY_BENCH_H_
#define TESTS_BENCH_LOOPS_FILE_COPY_BENCH_H_

#include "client/bpfgrant/connection.h"

namespace bpfgrant::bench {

// Prints its tables. `connection` null: without the loop in the kernel. Its
// files are made where BenchChain makes its own.
void BenchFileCopy(Connection* connection);

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_FILE_COPY_BENCH_H_

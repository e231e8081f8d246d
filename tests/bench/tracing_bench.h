// What io_latency costs io_uring requests: of processes that have nothing to do
// with it, and of those that it serves.

#ifndef TESTS_BENCH_TRACING_BENCH_H_
#define TESTS_BENCH_TRACING_BENCH_H_

namespace bpfgrant::bench {

void MeasureRequests();

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_TRACING_BENCH_H_

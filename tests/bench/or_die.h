// What a benchmark does about an error.

#ifndef TESTS_BENCH_OR_DIE_H_
#define TESTS_BENCH_OR_DIE_H_

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/status/statusor.h"

namespace bpfgrant::bench {

// The value, or the end with the error on standard error.
template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "bench: %s\n", value.status().ToString().c_str());
  std::exit(1);
}

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_OR_DIE_H_

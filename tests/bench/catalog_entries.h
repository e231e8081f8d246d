// Catalog entries made for measuring: the built programs with other pools.

#ifndef TESTS_BENCH_CATALOG_ENTRIES_H_
#define TESTS_BENCH_CATALOG_ENTRIES_H_

#include <cstdint>
#include <string>

#include "tests/harness/daemon_fixture.h"

namespace bpfgrant::bench {

// Enters packet_sampler under `name` with `ready` instances in the pool.
void AddSampler(test::Daemon& daemon, const std::string& name, uint32_t ready);

// Enters the program that needs kernel BTF, as "kernel_btf".
void AddKernelBtf(test::Daemon& daemon, uint32_t ready);

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_CATALOG_ENTRIES_H_

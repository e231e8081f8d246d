// Durations of one thing done many times, and how they are printed.

#ifndef TESTS_BENCH_SAMPLES_H_
#define TESTS_BENCH_SAMPLES_H_

#include <chrono>
#include <string>
#include <vector>

namespace bpfgrant::bench {

class Samples {
 public:
  using Clock = std::chrono::steady_clock;

  void Add(Clock::duration duration);
  // Runs and measures `work`.
  template <typename Work>
  void Measure(Work work) {
    const auto start = Clock::now();
    work();
    Add(Clock::now() - start);
  }

  // Microseconds that `share` (0 to 1) of them did not exceed.
  double Percentile(double share) const;
  size_t size() const { return microseconds_.size(); }

 private:
  mutable std::vector<double> microseconds_;
};

// A row of the table: name, p50, p99, and the p50 as a multiple of `baseline`'s
// if one is given.
void PrintRow(const std::string& name, const Samples& samples,
              const Samples* baseline = nullptr,
              const std::string& baseline_name = "");

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_SAMPLES_H_

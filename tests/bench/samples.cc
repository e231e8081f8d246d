#include "tests/bench/samples.h"

#include <algorithm>
#include <cstdio>

namespace bpfgrant::bench {

void Samples::Add(Clock::duration duration) {
  microseconds_.push_back(
      std::chrono::duration<double, std::micro>(duration).count());
}

double Samples::Percentile(double share) const {
  if (microseconds_.empty()) return 0;
  std::sort(microseconds_.begin(), microseconds_.end());
  const size_t last = microseconds_.size() - 1;
  return microseconds_[static_cast<size_t>(share * static_cast<double>(last))];
}

void PrintRow(const std::string& name, const Samples& samples,
              const Samples* baseline, const std::string& baseline_name) {
  std::printf("%-44s %9.1f us %9.1f us", name.c_str(), samples.Percentile(0.5),
              samples.Percentile(0.99));
  if (baseline != nullptr) {
    const double ratio = samples.Percentile(0.5) / baseline->Percentile(0.5);
    if (ratio >= 0.5) {
      std::printf("   %6.2fx %s", ratio, baseline_name.c_str());
    } else {
      std::printf("   1/%.0f of %s", 1 / ratio, baseline_name.c_str());
    }
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace bpfgrant::bench

// How long something took, how often: what a histogram of OpenMetrics is made
// of.
//
// On the loop's thread alone. Record is a few additions: Debian's
// prometheus-cpp takes a lock, searches a vector of bounds, and writes
// Prometheus' older text.

#ifndef DAEMON_BROKER_HISTOGRAM_H_
#define DAEMON_BROKER_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace bpfgrant::broker {

class Histogram {
 public:
  // Up to 2^i microseconds each: 1 us to 67 s; the last one is for the rest.
  static constexpr size_t kBounds = 27;

  void Record(std::chrono::nanoseconds took) {
    const auto ns = static_cast<uint64_t>(std::max<int64_t>(took.count(), 0));
    // Rounded up, less one: 2^i itself belongs below its bound.
    const uint64_t us = ns == 0 ? 0 : (ns - 1) / 1000;
    ++buckets_[std::min<size_t>(std::bit_width(us), kBounds)];
    sum_ns_ += ns;
  }

  // Seconds.
  static double Bound(size_t i) {
    return static_cast<double>(uint64_t{1} << i) / 1e6;
  }
  // Of bucket `i` alone; kBounds: above all bounds.
  uint64_t count(size_t i) const { return buckets_[i]; }
  double sum_seconds() const { return static_cast<double>(sum_ns_) / 1e9; }

 private:
  std::array<uint64_t, kBounds + 1> buckets_{};
  uint64_t sum_ns_ = 0;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_HISTOGRAM_H_

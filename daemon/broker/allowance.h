// So many at once, and so many a second after that.

#ifndef DAEMON_BROKER_ALLOWANCE_H_
#define DAEMON_BROKER_ALLOWANCE_H_

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace bpfgrant::broker {

class Allowance {
 public:
  using Clock = std::chrono::steady_clock;

  // `burst` at least 1; `per_second` may be less than 1.
  Allowance(double burst, double per_second, Clock::time_point now)
      : burst_(burst), per_second_(per_second), left_(burst), at_(now) {}

  // Others from now on; what is left stays, up to the burst.
  void SetLimits(double burst, double per_second, Clock::time_point now) {
    Refill(now);
    burst_ = burst;
    per_second_ = per_second;
    left_ = std::min(left_, burst_);
  }

  // Whether so many are left.
  bool Has(uint32_t count, Clock::time_point now) {
    Refill(now);
    return left_ >= count;
  }

  // Takes `count`, or nothing if so many are not left.
  bool Take(uint32_t count, Clock::time_point now) {
    if (!Has(count, now)) return false;
    left_ -= count;
    return true;
  }

  // Whether it is as if nothing had ever been taken.
  bool IsFull(Clock::time_point now) {
    Refill(now);
    return left_ == burst_;
  }

 private:
  void Refill(Clock::time_point now) {
    const std::chrono::duration<double> passed = now - at_;
    left_ = std::min(burst_, left_ + passed.count() * per_second_);
    at_ = now;
  }

  double burst_;
  double per_second_;
  double left_;
  Clock::time_point at_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_ALLOWANCE_H_

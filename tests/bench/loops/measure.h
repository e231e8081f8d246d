// Times ways to do the same job against each other: in turns, several times,
// the best of each counts. What they are compared with is one of them, by name.

#ifndef TESTS_BENCH_LOOPS_MEASURE_H_
#define TESTS_BENCH_LOOPS_MEASURE_H_

#include <sched.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bpfgrant::bench {

// What a number of jobs took.
struct Spent {
  double seconds = 0;
  uint64_t jobs = 0;
  uint64_t enters = 0;    // calls of io_uring_enter(2)
  uint64_t switches = 0;  // times that the thread slept
  uint64_t copied = 0;    // bytes that were copied in the process or the loop
};

// Seconds, and how often this thread slept, since it was made.
class Stopwatch {
 public:
  Stopwatch();
  double seconds() const;
  uint64_t switches() const;

 private:
  double begun_;
  uint64_t switches_;
};

// While it exists this thread, and those that it begins, share one processor:
// then what takes turns is measured, and not how processors wake each other.
class OneProcessor {
 public:
  OneProcessor();
  ~OneProcessor();
  OneProcessor(const OneProcessor&) = delete;
  OneProcessor& operator=(const OneProcessor&) = delete;

 private:
  cpu_set_t before_;
};

class Contest {
 public:
  using Turn = std::function<Spent()>;

  Contest(std::string title, std::string baseline)
      : title_(std::move(title)), baseline_(std::move(baseline)) {}
  // `turn` does some jobs and says what they took.
  void Add(std::string name, Turn turn) {
    contestants_.push_back({std::move(name), std::move(turn), {}});
  }
  // Prints, for a job of each: microseconds, how many times as fast as the
  // baseline, enters, sleeps and bytes copied.
  void Run(int rounds);

 private:
  struct Contestant {
    std::string name;
    Turn turn;
    Spent best;
  };

  std::string title_;
  std::string baseline_;
  std::vector<Contestant> contestants_;
};

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_MEASURE_H_

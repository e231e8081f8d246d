#include "tests/bench/loops/measure.h"

#include <sys/resource.h>

#include <chrono>
#include <cstdio>

namespace bpfgrant::bench {
namespace {

double Now() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

uint64_t Switches() {
  rusage usage{};
  getrusage(RUSAGE_THREAD, &usage);
  return static_cast<uint64_t>(usage.ru_nvcsw);
}

double Each(const Spent& spent) {
  return spent.seconds / static_cast<double>(spent.jobs);
}

}  // namespace

Stopwatch::Stopwatch() : begun_(Now()), switches_(Switches()) {}
double Stopwatch::seconds() const { return Now() - begun_; }
uint64_t Stopwatch::switches() const { return Switches() - switches_; }

OneProcessor::OneProcessor() {
  sched_getaffinity(0, sizeof(before_), &before_);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before_)) CPU_SET(cpu, &one);
  }
  sched_setaffinity(0, sizeof(one), &one);
}

OneProcessor::~OneProcessor() {
  sched_setaffinity(0, sizeof(before_), &before_);
}

void Contest::Run(int rounds) {
  for (int round = 0; round < rounds; ++round) {
    for (Contestant& contestant : contestants_) {
      const Spent spent = contestant.turn();
      if (round == 0 || Each(spent) < Each(contestant.best))
        contestant.best = spent;
    }
  }
  double baseline = 0;
  for (const Contestant& contestant : contestants_) {
    if (contestant.name == baseline_) baseline = Each(contestant.best);
  }
  std::printf("%s\n  %-34s %10s %7s %8s %8s %9s\n", title_.c_str(), "", "us",
              "ratio", "enters", "sleeps", "copied");
  for (const Contestant& contestant : contestants_) {
    const Spent& best = contestant.best;
    const auto jobs = static_cast<double>(best.jobs);
    std::printf("  %-34s %10.3f %6.2fx %8.3f %8.3f %9.1f\n",
                contestant.name.c_str(), Each(best) * 1e6,
                baseline / Each(best), static_cast<double>(best.enters) / jobs,
                static_cast<double>(best.switches) / jobs,
                static_cast<double>(best.copied) / jobs);
  }
  std::fflush(stdout);
}

}  // namespace bpfgrant::bench

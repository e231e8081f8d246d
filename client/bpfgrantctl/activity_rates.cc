#include "client/bpfgrantctl/activity_rates.h"

#include <algorithm>
#include <map>
#include <string>

namespace bpfgrant::ctl {
namespace {

v1::Rate RateOf(const v1::RunCount& before, const v1::RunCount& after,
                double seconds) {
  const auto grown = [](uint64_t from, uint64_t to) {
    return to > from ? static_cast<double>(to - from) : 0.0;
  };
  v1::Rate rate;
  if (seconds <= 0) return rate;
  const double runs = grown(before.runs(), after.runs());
  const double ns = grown(before.run_ns(), after.run_ns());
  rate.set_runs_per_second(runs / seconds);
  rate.set_ns_per_run(runs > 0 ? ns / runs : 0);
  rate.set_processors(ns / seconds / 1e9);
  rate.set_misses_per_second(
      grown(before.recursion_misses(), after.recursion_misses()) / seconds);
  return rate;
}

template <typename List>
void SortByRuns(List* list) {
  std::stable_sort(
      list->begin(), list->end(), [](const auto& one, const auto& other) {
        return one.rate().runs_per_second() > other.rate().runs_per_second();
      });
}

}  // namespace

v1::ActivityRates RatesBetween(const v1::ActivityReply& before,
                               const v1::ActivityReply& after) {
  v1::ActivityRates rates;
  const double seconds =
      static_cast<double>(after.at_ns() - before.at_ns()) / 1e9;
  rates.set_seconds(seconds);
  rates.set_counting(before.counting() && after.counting());
  rates.set_unavailable(after.unavailable());
  std::map<std::string, v1::RunCount> programs;
  for (const auto& each : before.program()) {
    programs[each.program()] = each.count();
  }
  for (const auto& each : after.program()) {
    v1::ProgramRate& rate = *rates.add_program();
    rate.set_program(each.program());
    *rate.mutable_rate() =
        RateOf(programs[each.program()], each.count(), seconds);
    rate.set_instances(each.instances());
    rate.set_whole_machine(each.whole_machine());
  }
  std::map<uint64_t, v1::RunCount> grants;
  for (const auto& each : before.grant()) grants[each.grant()] = each.count();
  for (const auto& each : after.grant()) {
    v1::GrantRate& rate = *rates.add_grant();
    rate.set_grant(each.grant());
    rate.set_program(each.program());
    rate.set_uid(each.uid());
    rate.set_pid(each.pid());
    rate.set_unit(each.unit());
    if (each.has_count()) {
      *rate.mutable_rate() =
          RateOf(grants[each.grant()], each.count(), seconds);
    }
    *rate.mutable_ring_buffer() = each.ring_buffer();
  }
  SortByRuns(rates.mutable_program());
  SortByRuns(rates.mutable_grant());
  return rates;
}

}  // namespace bpfgrant::ctl

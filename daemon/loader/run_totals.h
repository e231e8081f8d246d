// How often programs ran since the daemon began: of each instance that the
// kernel still has, and of each program of the catalog in all.
//
// What an instance did after the last Report before its end is lost; a total
// never becomes less.

#ifndef DAEMON_LOADER_RUN_TOTALS_H_
#define DAEMON_LOADER_RUN_TOTALS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "bpfgrant/daemon/statistics.pb.h"
#include "daemon/loader/object_register.h"
#include "daemon/loader/statistics.h"

namespace bpfgrant::daemon {

// A program that is loaded once for all its grants.
struct SharedProgram {
  std::string name;
  // All programs of its object: what it costs the machine.
  std::vector<uint32_t> program_ids;
};

class RunTotals {
 public:
  // Without the time, which is the caller's to say.
  StatisticsMessage Report(const Activity& activity,
                           const ObjectRegister& objects,
                           const std::vector<SharedProgram>& shared);

 private:
  struct Counted {
    bpfgrant_program_statistics last{};
    bool seen = false;  // in the report that is being made
  };

  // Adds what that program did since it was seen last.
  void Add(const bpfgrant_program_statistics& now, v1::RunCount& total);

  std::map<uint32_t, Counted> counted_;        // by program id
  std::map<std::string, v1::RunCount> total_;  // by name in the catalog
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_RUN_TOTALS_H_

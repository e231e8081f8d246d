// Which functions of an object read and write which of its maps, found by
// following where the addresses of maps and of what is in them go.
//
// In doubt too much rather than too little: a use that is not there may be
// told, none that is there is left out but what goes through kernel functions
// that return a map's memory.

#ifndef DAEMON_LOADER_INSPECTION_MAP_USE_H_
#define DAEMON_LOADER_INSPECTION_MAP_USE_H_

#include <cstdint>
#include <vector>

#include "daemon/loader/inspection/code.h"

namespace bpfgrant::daemon {

// Bit N is Code::objects[N]; the last bit stands for all from there on.
using ObjectSet = uint64_t;
inline constexpr uint32_t kLastObject = 63;
ObjectSet BitOf(uint32_t object);

struct MapUse {
  ObjectSet looked_up = 0;  // asked for an entry, whatever came of it
  ObjectSet read = 0;
  ObjectSet written = 0;
};

struct MapUses {
  std::vector<MapUse> of;  // by function, without those that it calls
  // False: the code is too large to follow. Then each function counts as
  // reading and writing what it refers to.
  bool followed = true;
};

// Instructions that are looked at, each as often as something new may come by
// it.
inline constexpr uint64_t kMostSteps = 20'000'000;

MapUses FollowMaps(const Code& code, uint64_t most_steps = kMostSteps);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_MAP_USE_H_

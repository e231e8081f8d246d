// What the kernel's helpers do with the maps and the memory that they are
// given, and which of them are dangerous.

#ifndef DAEMON_LOADER_INSPECTION_HELPERS_H_
#define DAEMON_LOADER_INSPECTION_HELPERS_H_

#include <cstdint>
#include <string_view>

namespace bpfgrant::daemon {

struct HelperEffect {
  enum class Memory { kUntouched, kRead, kFilled, kWritten };

  bool reads = true;  // the map's entries
  bool writes = true;
  Memory memory = Memory::kWritten;  // what it is given besides the map
  bool finds = false;                // returns an entry of the map
  bool calls = false;                // a function that it is given,
  bool shows = false;                // with an entry of the map
};
// Of a helper that is not known: all that it could do.
HelperEffect EffectOf(uint32_t helper);

// Why a program that calls the helper of that name has to be trusted; "": it
// need not.
std::string_view DangerOf(std::string_view name);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_HELPERS_H_

// The kernel's helper functions by their names.

#ifndef DAEMON_LOADER_HELPER_NAME_H_
#define DAEMON_LOADER_HELPER_NAME_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace bpfgrant::daemon {

// "map_lookup_elem" for BPF_FUNC_map_lookup_elem; "number 999" if it has no
// name here.
std::string HelperName(uint32_t id);

// Whether a helper is called so.
bool IsHelper(std::string_view name);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_HELPER_NAME_H_

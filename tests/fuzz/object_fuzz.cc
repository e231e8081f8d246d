// What of a BPF object is read without libbpf. That reads what it reads in a
// process of its own (tests/catalog/broken_object_test.cc).

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "daemon/loader/inspection/code.h"
#include "daemon/loader/inspection/map_use.h"
#include "daemon/loader/references.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bpfgrant::daemon;
  const std::string_view object(reinterpret_cast<const char*>(data), size);
  const Code code = ReadCode(object);
  const MapUses uses = FollowMaps(code);
  if (uses.of.size() != code.functions.size()) std::abort();
  for (uint32_t f = 0; f < code.functions.size(); ++f) {
    if (code.ReachableFrom(f).empty()) std::abort();
    ReadReferences(object, code.functions[f].name);
  }
  return 0;
}

#include "daemon/loader/helper_name.h"

#include <linux/bpf.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace bpfgrant::daemon {
namespace {

#define BPFGRANT_HELPER_NAME(name) #name
constexpr std::string_view kHelpers[] = {
    __BPF_FUNC_MAPPER(BPFGRANT_HELPER_NAME)};
#undef BPFGRANT_HELPER_NAME

}  // namespace

std::string HelperName(uint32_t id) {
  return id < std::size(kHelpers) ? std::string(kHelpers[id])
                                  : absl::StrCat("number ", id);
}

bool IsHelper(std::string_view name) {
  return std::find(std::begin(kHelpers) + 1, std::end(kHelpers), name) !=
         std::end(kHelpers);
}

}  // namespace bpfgrant::daemon

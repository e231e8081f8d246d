#include "daemon/loader/gate_map.h"

#include <bpf/bpf.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

constexpr size_t kBytes = size_t{kGateSlots} * sizeof(uint64_t);

}  // namespace

absl::StatusOr<GateMap> GateMap::Create() {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  UniqueFd fd(bpf_map_create(BPF_MAP_TYPE_ARRAY, "bpfgrant_gate",
                             sizeof(uint32_t), sizeof(uint64_t), kGateSlots,
                             &options));
  if (!fd.valid()) {
    return absl::InternalError(
        absl::StrCat("making the gate map: ", std::strerror(errno)));
  }
  void* memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat("mapping the gate map: ", std::strerror(errno)));
  }
  return GateMap(std::move(fd), static_cast<uint64_t*>(memory));
}

GateMap::~GateMap() {
  if (slots_ != nullptr) munmap(slots_, kBytes);
}

void GateMap::CloseAll() {
  for (uint32_t slot = 0; slot < kGateSlots; ++slot) {
    std::atomic_ref<uint64_t>(slots_[slot]).store(0);
  }
}

}  // namespace bpfgrant::daemon

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

constexpr size_t kBytes = size_t{kGateSlots} * sizeof(bpfgrant_gate_entry);

}  // namespace

absl::StatusOr<UniqueFd> GateMap::MakeMap() {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  UniqueFd fd(bpf_map_create(BPF_MAP_TYPE_ARRAY, "bpfgrant_gate",
                             sizeof(uint32_t), sizeof(bpfgrant_gate_entry),
                             kGateSlots, &options));
  if (!fd.valid()) {
    return absl::InternalError(
        absl::StrCat("making the gate map: ", std::strerror(errno)));
  }
  return fd;
}

absl::StatusOr<GateMap> GateMap::Create() {
  auto map = MakeMap();
  if (!map.ok()) return map.status();
  return Map(*std::move(map));
}

absl::StatusOr<GateMap> GateMap::Map(UniqueFd fd) {
  void* memory =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat("mapping the gate map: ", std::strerror(errno)));
  }
  return GateMap(std::move(fd), static_cast<bpfgrant_gate_entry*>(memory));
}

GateMap::~GateMap() {
  if (slots_ != nullptr) munmap(slots_, kBytes);
}

void GateMap::CloseAll() {
  for (uint32_t slot = 0; slot < kGateSlots; ++slot) {
    std::atomic_ref<__u64>(slots_[slot].nonce).store(0);
  }
}

}  // namespace bpfgrant::daemon

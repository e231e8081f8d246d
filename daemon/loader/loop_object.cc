#include "daemon/loader/loop_object.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpf-programs/include/bpfgrant/loop_trace.h"
#include "daemon/loader/object.h"
#include "daemon/loader/swap.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kStructure[] = "bpf_struct_ops_io_uring_bpf_ops";
// In struct io_rings (include/linux/io_uring_types.h).
constexpr uint32_t kSqHeaderOffset = 0;
constexpr uint32_t kCqHeaderOffset = 8;
constexpr uint32_t kCqesOffset = 64;

struct BtfFree {
  void operator()(btf* types) const { btf__free(types); }
};
using Btf = std::unique_ptr<btf, BtfFree>;

// What a map of struct io_uring_bpf_ops holds.
struct Structure {
  uint32_t bytes = 0;
  uint32_t data_offset = 0;
};

// Looked up once: the kernel's BTF takes milliseconds to read, and stays.
const Structure* FindStructureOnce() {
  static const Structure found = [] {
    const LibbpfLog log;
    Structure structure;
    const Btf types(btf__load_vmlinux_btf());
    if (types == nullptr) return structure;
    const int id =
        btf__find_by_name_kind(types.get(), kStructure, BTF_KIND_STRUCT);
    if (id < 0) return structure;
    const btf_type* type = btf__type_by_id(types.get(), id);
    for (int i = 0; i < btf_vlen(type); ++i) {
      const btf_member& member = btf_members(type)[i];
      if (std::strcmp(btf__name_by_offset(types.get(), member.name_off),
                      "data") == 0) {
        structure.data_offset = btf_member_bit_offset(type, i) / 8;
        structure.bytes = type->size;
      }
    }
    return structure;
  }();
  return found.bytes == 0 ? nullptr : &found;
}

}  // namespace

bool IsEntryMap(std::string_view name) {
  return name == kLoopStatusMap || name == kLoopTraceMap ||
         name == kLoopStepsMap || name == kLoopStructureMap;
}

bool KernelHasLoops() { return FindStructureOnce() != nullptr; }

bool HasLoops(const KernelTypes& kernel) {
  return btf__find_by_name_kind(kernel.get(), kStructure, BTF_KIND_STRUCT) > 0;
}

absl::StatusOr<UniqueFd> MakeTraceBuffer() {
  UniqueFd map(bpf_map_create(BPF_MAP_TYPE_RINGBUF, kLoopTraceMap, 0, 0,
                              BPFGRANT_TRACE_BYTES, nullptr));
  if (!map.valid()) {
    return absl::InternalError(absl::StrCat(
        "making the ring buffer for traces: ", std::strerror(errno)));
  }
  return map;
}

absl::StatusOr<UniqueFd> MakeStepsMap() {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  UniqueFd map(bpf_map_create(BPF_MAP_TYPE_ARRAY, kLoopStepsMap,
                              sizeof(uint32_t), sizeof(bpfgrant_steps),
                              kGateSlots, &options));
  if (!map.valid()) {
    return absl::InternalError(
        absl::StrCat("making the map of steps: ", std::strerror(errno)));
  }
  return map;
}

absl::Status SetLoopConstants(bpf_object* object, const v1::Manifest& manifest,
                              const Mitigations& mitigations) {
  const v1::Manifest::Loop& loop = manifest.loop();
  struct Constant {
    const char* section;
    std::string name;
    uint32_t value;
  };
  uint32_t budget =
      loop.has_step_budget() ? loop.step_budget() : kDefaultStepBudget;
  if (!mitigations.loop_step_budget) budget = ~0U;
  std::vector<Constant> constants = {
      {".rodata.gate", "bpfgrant_step_budget", budget},
      {".rodata.gate", "bpfgrant_task_check", mitigations.loop_task_check},
      {".rodata.gate", "bpfgrant_count_steps", HasSwaps(manifest)},
      {".rodata.ring", "bpfgrant_sq_entries", loop.sq_entries()},
      {".rodata.ring", "bpfgrant_cq_entries", loop.cq_entries()},
  };
  const v1::Manifest::Geometry& bound = loop.geometry();
  constants.push_back({".rodata", bound.sq_entries(), loop.sq_entries()});
  constants.push_back({".rodata", bound.cq_entries(), loop.cq_entries()});
  constants.push_back({".rodata", bound.sq_header_offset(), kSqHeaderOffset});
  constants.push_back({".rodata", bound.cq_header_offset(), kCqHeaderOffset});
  constants.push_back({".rodata", bound.cqes_offset(), kCqesOffset});
  for (const Constant& constant : constants) {
    if (constant.name.empty()) continue;
    if (!SetConstant(object, constant.section, constant.name, &constant.value,
                     sizeof(constant.value))) {
      return Refuse(v1::REASON_OBJECT_MISMATCH,
                    absl::StrCat("the object has no constant '", constant.name,
                                 "' of 4 bytes in ", constant.section));
    }
  }
  return absl::OkStatus();
}

absl::Status PrepareStructure(const bpf_object* object) {
  const Structure* structure = FindStructureOnce();
  const bpf_map* map = MapOf(object, kLoopStructureMap);
  if (structure == nullptr || map == nullptr) {
    return absl::InternalError("this kernel has no io_uring loops");
  }
  std::vector<char> value(structure->bytes);
  // Its first member is a pointer, for which the kernel takes a program's fd,
  // its second the ring's number.
  const auto program =
      static_cast<uint64_t>(bpf_program__fd(ProgramOf(object)));
  const uint32_t ring = kRingNumber;
  std::memcpy(value.data() + structure->data_offset, &program, sizeof(program));
  std::memcpy(value.data() + structure->data_offset + sizeof(program), &ring,
              sizeof(ring));
  const uint32_t key = 0;
  if (bpf_map_update_elem(bpf_map__fd(map), &key, value.data(), 0) < 0) {
    return absl::InternalError(absl::StrCat(
        "completing struct io_uring_bpf_ops: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace bpfgrant::daemon

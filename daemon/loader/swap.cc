#include "daemon/loader/swap.h"

#include <linux/bpf.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "daemon/loader/object.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

constexpr uint32_t kCopies = 2;

// The headers' functions, as libbpf leaves them. What is -1 here depends on the
// object: the fds of maps, where the slot's number stands, and the call.
constexpr int kSlotMap = 0, kSlotPlace = 1, kGate = 6;
constexpr std::array<bpf_insn, 10> kGateHere = {{
    {BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_VALUE, 0, -1},
    {0, 0, 0, 0, -1},
    {BPF_LDX | BPF_MEM | BPF_W, 1, 1, 0, 0},
    {BPF_STX | BPF_MEM | BPF_W, 10, 1, -4, 0},
    {BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0},
    {BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4},
    {BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, -1},
    {0, 0, 0, 0, 0},
    {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem},
    {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
}};
constexpr int kCall = 0, kBit = 3, kMaps = 8;
constexpr std::array<bpf_insn, 12> kNow = {{
    {BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_CALL, 0, -1},
    {BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 9, 0},
    {BPF_LDX | BPF_MEM | BPF_DW, 1, 0, offsetof(bpfgrant_gate_entry, swaps), 0},
    {BPF_ALU64 | BPF_RSH | BPF_K, 1, 0, 0, -1},
    {BPF_ALU64 | BPF_AND | BPF_K, 1, 0, 0, 1},
    {BPF_STX | BPF_MEM | BPF_W, 10, 1, -4, 0},
    {BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0},
    {BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4},
    {BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, -1},
    {0, 0, 0, 0, 0},
    {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem},
    {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
}};

bool Equal(const bpf_insn& a, const bpf_insn& b) {
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

bool LoadsMap(const bpf_insn& instruction) {
  return instruction.code == (BPF_LD | BPF_IMM | BPF_DW) &&
         (instruction.src_reg == BPF_PSEUDO_MAP_FD ||
          instruction.src_reg == BPF_PSEUDO_MAP_VALUE);
}

// The instructions of a loaded program, its functions behind it.
class Code {
 public:
  explicit Code(const bpf_program* program)
      : code_(bpf_program__insns(program), bpf_program__insn_cnt(program)) {}

  size_t size() const { return code_.size(); }
  const bpf_insn& operator[](size_t i) const { return code_[i]; }

  // The instruction that the one at `i` calls; size(): it calls none.
  size_t CalledBy(size_t i) const {
    if (i >= code_.size() || code_[i].code != (BPF_JMP | BPF_CALL) ||
        code_[i].src_reg != BPF_PSEUDO_CALL) {
      return code_.size();
    }
    return i + 1 + code_[i].imm;
  }

  // A function's begin: nothing jumps behind that from elsewhere, which the
  // verifier sees to (check_subprogs, kernel/bpf/verifier.c).
  bool IsCalled(size_t begin) const {
    for (size_t i = 0; i < code_.size(); ++i) {
      if (CalledBy(i) == begin) return true;
    }
    return false;
  }

  bool Is(size_t begin, absl::Span<const bpf_insn> wanted) const {
    return begin + wanted.size() <= code_.size() &&
           std::equal(wanted.begin(), wanted.end(), code_.begin() + begin,
                      Equal);
  }

 private:
  absl::Span<const bpf_insn> code_;
};

absl::Status Mismatch(const v1::Manifest::Map& map, absl::string_view what) {
  return Refuse(v1::REASON_OBJECT_MISMATCH,
                absl::StrCat("swappable map '", map.name(), "': ", what));
}

absl::Status CheckEmpty(const v1::Manifest::Map& declared, int fd) {
  for (uint32_t copy = 0; copy < kCopies; ++copy) {
    uint32_t id = 0;
    if (bpf_map_lookup_elem(fd, &copy, &id) == 0) {
      return Mismatch(declared,
                      "the object puts maps into it, which its program could "
                      "reach in another way; the loader makes them");
    }
    if (errno != ENOENT) {
      return absl::InternalError(
          absl::StrCat("asking about a map: ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

std::array<bpf_insn, kGateHere.size()> GateHereOf(const bpf_object* object) {
  const GatePlace slot = GateSlotOf(object);
  auto wanted = kGateHere;
  wanted[kSlotMap].imm = slot.map;
  wanted[kSlotPlace].imm = static_cast<int32_t>(slot.offset);
  wanted[kGate].imm = bpf_map__fd(GateOf(object));
  return wanted;
}

absl::Status CheckUses(const bpf_object* object, const Code& code,
                       const v1::Manifest::Map& declared, int number) {
  const int maps = bpf_map__fd(MapOf(object, declared.name()));
  const auto gate_here = GateHereOf(object);
  auto now = kNow;
  now[kBit].imm = number;
  now[kMaps].imm = maps;
  bool used = false;
  for (size_t i = 0; i < code.size(); ++i) {
    if (!LoadsMap(code[i]) || code[i].imm != maps) continue;
    const size_t begin = i - kMaps;
    if (i >= kMaps) now[kCall].imm = code[begin + kCall].imm;
    if (i < kMaps || !code.IsCalled(begin) || !code.Is(begin, now) ||
        !code.Is(code.CalledBy(begin + kCall), gate_here)) {
      return Mismatch(
          declared, absl::StrCat("the program reaches it otherwise than by "
                                 "bpfgrant_now(), or its number there is not ",
                                 number, ", its place in the manifest"));
    }
    used = true;
  }
  if (used) return absl::OkStatus();
  return Mismatch(declared, "the program does not look at it");
}

}  // namespace

bool HasSwaps(const v1::Manifest& manifest) {
  return std::any_of(manifest.map().begin(), manifest.map().end(),
                     [](const auto& map) { return map.swappable(); });
}

absl::Status CheckSwappable(const bpf_map* map, const Manifest& manifest,
                            int index) {
  const v1::Manifest::Map& declared = manifest.message().map(index);
  const bpf_map* inner = bpf_map__inner_map(const_cast<bpf_map*>(map));
  if (bpf_map__type(map) == BPF_MAP_TYPE_ARRAY_OF_MAPS &&
      bpf_map__max_entries(map) == kCopies && inner != nullptr &&
      KernelMapType(declared.kind()) == bpf_map__type(inner)) {
    return absl::OkStatus();
  }
  return manifest.RefuseAt(
      manifest.text().Where("map", index, "swappable"),
      v1::REASON_OBJECT_MISMATCH,
      absl::StrCat("the object's map '", declared.name(),
                   "' is no BPFGRANT_SWAPPABLE of that kind"));
}

absl::Status CheckSwapAccess(const bpf_object* object,
                             const v1::Manifest& manifest) {
  const Code code(ProgramOf(object));
  int number = 0;
  for (const v1::Manifest::Map& map : manifest.map()) {
    if (!map.swappable()) continue;
    absl::Status status =
        CheckEmpty(map, bpf_map__fd(MapOf(object, map.name())));
    if (status.ok()) status = CheckUses(object, code, map, number);
    if (!status.ok()) return status;
    ++number;
  }
  return absl::OkStatus();
}

Swaps::Swaps(const bpf_object* object, const v1::Manifest& manifest,
             bool narrowed) {
  for (const v1::Manifest::Map& map : manifest.map()) {
    if (!map.swappable()) continue;
    const bpf_map* inner = bpf_map__inner_map(MapOf(object, map.name()));
    std::optional<v1::Rights> rights;
    if (narrowed) rights = map.rights();
    pairs_.push_back({map.name(), MapShape(inner), rights, {}});
  }
}

absl::Status Swaps::Fill(const bpf_object* object) {
  for (Pair& pair : pairs_) {
    std::array<uint32_t, kCopies> keys{}, fds{};
    for (uint32_t copy = 0; copy < kCopies; ++copy) {
      auto map = pair.shape.Make(object, pair.name, pair.rights);
      if (!map.ok()) return map.status();
      keys[copy] = copy;
      fds[copy] = static_cast<uint32_t>(map->get());
      pair.maps[copy] = *std::move(map);
    }
    // Of one call the kernel makes one grace period, from Linux 6.12 on.
    uint32_t count = kCopies;
    if (bpf_map_update_batch(bpf_map__fd(MapOf(object, pair.name)), keys.data(),
                             fds.data(), &count, nullptr) < 0) {
      const int error = errno;
      return Refuse(MayPass(error) ? v1::REASON_BUSY : v1::REASON_LOAD_FAILED,
                    absl::StrCat("putting the two of '", pair.name,
                                 "' in place: ", std::strerror(error)));
    }
  }
  return absl::OkStatus();
}

UniqueFd Swaps::Take(const std::string& name, int copy) {
  const auto pair =
      std::find_if(pairs_.begin(), pairs_.end(),
                   [&name](const Pair& each) { return each.name == name; });
  return pair == pairs_.end() ? UniqueFd() : std::move(pair->maps[copy]);
}

}  // namespace bpfgrant::daemon

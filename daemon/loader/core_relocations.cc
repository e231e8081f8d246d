#include "daemon/loader/core_relocations.h"

#include <linux/bpf.h>
#include <bpf/btf.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "daemon/loader/btf_match.h"
#include "daemon/loader/elf_file.h"
#include "daemon/loader/references.h"

namespace bpfgrant::daemon {
namespace {

constexpr int kMaxUnnamedDepth = 16;

// The head of .BTF.ext (Documentation/bpf/btf.rst), as far as it is of use.
struct Header {
  uint16_t magic;
  uint8_t version;
  uint8_t flags;
  uint32_t bytes;
  uint32_t functions[2];
  uint32_t lines[2];
  uint32_t relocations_offset;
  uint32_t relocations_bytes;
};

// Takes records off the front of bytes.
template <typename Record>
bool Take(std::string_view& from, Record& record) {
  if (from.size() < sizeof(record)) return false;
  std::memcpy(&record, from.data(), sizeof(record));
  from.remove_prefix(sizeof(record));
  return true;
}

std::string_view RelocationsIn(std::string_view section) {
  Header header;
  std::string_view rest = section;
  if (!Take(rest, header) || header.magic != BTF_MAGIC ||
      header.bytes > section.size()) {
    return "";
  }
  section.remove_prefix(header.bytes);
  if (header.relocations_offset > section.size()) return "";
  return section.substr(header.relocations_offset, header.relocations_bytes);
}

// One step from a type into what it holds: a member, or an element.
struct Step {
  std::string_view member;  // "": an element of an array
  BtfPlace type;            // what is there
};

class Finder {
 public:
  Finder(const btf* local, const btf* kernel)
      : local_(local), kernel_(kernel) {}

  std::optional<KernelAccess> Find(const bpf_core_relo& relocation) {
    const BtfPlace root = BtfPlace{local_, relocation.type_id}.Bare();
    const char* text = btf__name_by_offset(local_, relocation.access_str_off);
    if (root.get() == nullptr || text == nullptr) return std::nullopt;
    switch (relocation.kind) {
      case BPF_CORE_TYPE_ID_LOCAL:
        return std::nullopt;
      case BPF_CORE_TYPE_ID_TARGET:
      case BPF_CORE_TYPE_SIZE:
      case BPF_CORE_TYPE_EXISTS:
        return OfType(root);
      case BPF_CORE_ENUMVAL_EXISTS:
      case BPF_CORE_ENUMVAL_VALUE:
        return OfValue(root, text, relocation.kind == BPF_CORE_ENUMVAL_EXISTS);
      case BPF_CORE_FIELD_BYTE_OFFSET:
      case BPF_CORE_FIELD_BYTE_SIZE:
      case BPF_CORE_FIELD_EXISTS:
      case BPF_CORE_FIELD_SIGNED:
      case BPF_CORE_FIELD_LSHIFT_U64:
      case BPF_CORE_FIELD_RSHIFT_U64:
        return OfField(root, text, relocation.kind == BPF_CORE_FIELD_EXISTS);
      default:
        // Newer than this: a question whose answer is not known.
        return KernelAccess{std::string(root.name()), true, false};
    }
  }

 private:
  // Of a type that is not there all of these are 0, and no mistake.
  std::optional<KernelAccess> OfType(BtfPlace root) {
    if (root.name().empty()) return std::nullopt;
    return KernelAccess{std::string(EssentialName(root.name())), true,
                        !Candidates(root).empty()};
  }

  std::optional<KernelAccess> OfValue(BtfPlace root, std::string_view text,
                                      bool asks) {
    uint32_t index = 0;
    const auto names = ValuesOf(root);
    if (!absl::SimpleAtoi(absl::string_view(text.data(), text.size()),
                          &index) ||
        index >= names.size()) {
      return std::nullopt;
    }
    const std::string_view wanted = EssentialName(names[index]);
    KernelAccess access{std::string(wanted), asks, false};
    for (const BtfPlace& candidate : Candidates(root)) {
      for (const std::string_view name : ValuesOf(candidate)) {
        if (EssentialName(name) == wanted) access.found = true;
      }
    }
    return access;
  }

  std::optional<KernelAccess> OfField(BtfPlace root, std::string_view text,
                                      bool asks) {
    const auto path = LocalPath(root, text);
    if (!path.has_value()) return std::nullopt;
    KernelAccess access{std::string(EssentialName(root.name())), asks, false};
    for (const Step& step : *path) {
      access.what += step.member.empty()
                         ? "[]"
                         : absl::StrCat(".", std::string(step.member));
    }
    for (const BtfPlace& candidate : Candidates(root)) {
      access.found = access.found || Follow(candidate, *path);
    }
    return access;
  }

  // "0:2:1": an element of what the root points to, then members by index.
  static std::optional<std::vector<Step>> LocalPath(BtfPlace root,
                                                    std::string_view text) {
    std::vector<Step> path;
    BtfPlace at = root;
    bool first = true;
    for (const absl::string_view part :
         absl::StrSplit(absl::string_view(text.data(), text.size()), ':')) {
      uint32_t index = 0;
      if (!absl::SimpleAtoi(part, &index)) return std::nullopt;
      if (std::exchange(first, false)) continue;
      at = at.Bare();
      const btf_type* type = at.get();
      if (type == nullptr) return std::nullopt;
      if (btf_is_composite(type) && index < btf_vlen(type)) {
        const btf_member& member = btf_members(type)[index];
        at.id = member.type;
        const char* name = btf__name_by_offset(at.types, member.name_off);
        if (name == nullptr) return std::nullopt;
        // What is in an unnamed one is the outer one's.
        if (*name != '\0') path.push_back({name, at});
      } else if (btf_is_array(type)) {
        at.id = btf_array(type)->type;
        path.push_back({"", at});
      } else {
        return std::nullopt;
      }
    }
    return path;
  }

  static bool Follow(BtfPlace at, const std::vector<Step>& path) {
    for (const Step& step : path) {
      at = at.Bare();
      const btf_type* type = at.get();
      if (type == nullptr) return false;
      if (!step.member.empty()) {
        const auto member = FindMember(at, step.member, 0);
        if (!member.has_value()) return false;
        at = *member;
      } else if (btf_is_array(type)) {
        at.id = btf_array(type)->type;
      } else {
        return false;
      }
      if (!FieldsMatch(step.type, at)) return false;
    }
    return true;
  }

  static std::optional<BtfPlace> FindMember(BtfPlace in,
                                            std::string_view wanted,
                                            int depth) {
    const BtfPlace bare = in.Bare();
    const btf_type* type = bare.get();
    if (type == nullptr || !btf_is_composite(type) ||
        depth > kMaxUnnamedDepth) {
      return std::nullopt;
    }
    for (int i = 0; i < btf_vlen(type); ++i) {
      const btf_member& member = btf_members(type)[i];
      const char* name = btf__name_by_offset(bare.types, member.name_off);
      const BtfPlace place{bare.types, member.type};
      if (name == nullptr) continue;
      if (wanted == name) return place;
      if (*name != '\0') continue;
      if (auto found = FindMember(place, wanted, depth + 1)) return found;
    }
    return std::nullopt;
  }

  static std::vector<std::string_view> ValuesOf(BtfPlace enumeration) {
    std::vector<std::string_view> names;
    const btf_type* type = enumeration.get();
    if (type == nullptr || !btf_is_any_enum(type)) return names;
    for (int i = 0; i < btf_vlen(type); ++i) {
      const uint32_t offset = btf_is_enum(type) ? btf_enum(type)[i].name_off
                                                : btf_enum64(type)[i].name_off;
      const char* name = btf__name_by_offset(enumeration.types, offset);
      names.emplace_back(name == nullptr ? "" : name);
    }
    return names;
  }

  // The kernel's types that may be the one that is meant.
  const std::vector<BtfPlace>& Candidates(BtfPlace root) {
    const auto [at, is_new] = candidates_.try_emplace(root.id);
    if (!is_new) return at->second;
    const std::string_view wanted = EssentialName(root.name());
    if (wanted.empty()) return at->second;
    for (uint32_t id = 1; id < btf__type_cnt(kernel_); ++id) {
      const BtfPlace place{kernel_, id};
      if (SameKind(place.get(), root.get()) &&
          EssentialName(place.name()) == wanted) {
        at->second.push_back(place);
      }
    }
    return at->second;
  }

  const btf* local_;
  const btf* kernel_;
  std::map<uint32_t, std::vector<BtfPlace>> candidates_;
};

}  // namespace

std::vector<KernelAccess> FindAccesses(std::string_view object,
                                       const btf* local,
                                       std::string_view function,
                                       const btf* kernel) {
  std::vector<KernelAccess> accesses;
  const auto file = ElfFile::OfBytes(object);
  if (!file.has_value()) return accesses;
  const auto section = file->Find(".BTF.ext");
  const auto code = ReadReferences(object, function).code;
  if (!section.has_value() || !code.has_value()) return accesses;
  std::string_view rest = RelocationsIn(section->data);
  Finder finder(local, kernel);
  uint32_t record_bytes = 0;
  if (!Take(rest, record_bytes) || record_bytes < sizeof(bpf_core_relo)) {
    return accesses;
  }
  struct {
    uint32_t name_offset;
    uint32_t count;
  } of_section;
  while (Take(rest, of_section)) {
    const char* name = btf__name_by_offset(local, of_section.name_offset);
    for (uint32_t i = 0; i < of_section.count; ++i) {
      std::string_view record = rest.substr(0, record_bytes);
      bpf_core_relo relocation;
      if (record.size() < record_bytes || !Take(record, relocation)) {
        return accesses;
      }
      rest.remove_prefix(record_bytes);
      if (name == nullptr || (name != kFunctionSection &&
                              !code->Contains(name, relocation.insn_off))) {
        continue;
      }
      if (auto access = finder.Find(relocation)) {
        accesses.push_back(*std::move(access));
      }
    }
  }
  return accesses;
}

}  // namespace bpfgrant::daemon

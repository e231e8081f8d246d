#include "daemon/loader/needs.h"

#include <bpf/btf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/btf_file.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/object.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

constexpr size_t kMaxSymbolBytes = 127;  // KSYM_NAME_LEN of old kernels
constexpr int kMaxUnnamedDepth = 16;

struct KindName {
  Need::Kind kind;
  std::string_view word;
  const char* noun;
};
constexpr KindName kKinds[] = {
    {Need::Kind::kKfunc, "kfunc", "function"},
    {Need::Kind::kHelper, "helper", "helper"},
    {Need::Kind::kMap, "map", "map type"},
    {Need::Kind::kField, "field", "structure's field"},
    {Need::Kind::kAttach, "attach", "attach type"},
};

}  // namespace

std::optional<Need> ParseNeed(std::string_view text) {
  const size_t space = text.find(' ');
  if (space == std::string_view::npos) return std::nullopt;
  const std::string_view what = text.substr(space + 1);
  for (const KindName& kind : kKinds) {
    if (text.substr(0, space) != kind.word) continue;
    const size_t dot =
        kind.kind == Need::Kind::kField ? what.find('.') : what.size();
    if (dot == std::string_view::npos ||
        !IsIdentifier(what.substr(0, dot), kMaxSymbolBytes) ||
        (dot < what.size() &&
         !IsIdentifier(what.substr(dot + 1), kMaxSymbolBytes))) {
      return std::nullopt;
    }
    return Need{kind.kind, std::string(what)};
  }
  return std::nullopt;
}

void KernelTypes::Closer::operator()(btf* types) const { btf__free(types); }

absl::StatusOr<KernelTypes> KernelTypes::OfThisKernel() {
  const LibbpfLog log;
  Types types(btf__load_vmlinux_btf());
  if (types == nullptr) {
    return absl::InternalError(absl::StrCat(
        "this kernel shows no BTF (/sys/kernel/btf/vmlinux: ",
        std::strerror(errno),
        "): it was built without CONFIG_DEBUG_INFO_BTF, or /sys is not mounted "
        "here"));
  }
  return KernelTypes(std::move(types));
}

absl::StatusOr<KernelTypes> KernelTypes::OfFile(int file) {
  const auto bytes = ReadBtf(file);
  if (!bytes.ok()) return bytes.status();
  const LibbpfLog log;
  Types types(btf__new(bytes->data(), static_cast<uint32_t>(bytes->size())));
  if (types == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("its BTF is damaged: ", std::strerror(errno)));
  }
  return KernelTypes(std::move(types));
}

absl::Status KernelTypes::Check(const Need& need) const {
  if (Has(need)) return absl::OkStatus();
  const auto* kind = std::find_if(
      std::begin(kKinds), std::end(kKinds),
      [&](const KindName& candidate) { return candidate.kind == need.kind; });
  return Refuse(
      v1::REASON_KERNEL_TOO_OLD,
      absl::StrCat("the kernel has no ", kind->noun, " '", need.what, "'"));
}

bool KernelTypes::Has(const Need& need) const {
  switch (need.kind) {
    case Need::Kind::kKfunc:
      return btf__find_by_name_kind(types_.get(), need.what.c_str(),
                                    BTF_KIND_FUNC) > 0;
    case Need::Kind::kHelper:
      return HasEnumerator("bpf_func_id", absl::StrCat("BPF_FUNC_", need.what));
    case Need::Kind::kMap:
      return HasEnumerator("bpf_map_type",
                           absl::StrCat("BPF_MAP_TYPE_", need.what));
    case Need::Kind::kAttach:
      return HasEnumerator("bpf_attach_type", absl::StrCat("BPF_", need.what));
    case Need::Kind::kField: {
      const size_t dot = need.what.find('.');
      return HasMember(
          btf__find_by_name_kind(types_.get(), need.what.substr(0, dot).c_str(),
                                 BTF_KIND_STRUCT),
          std::string_view(need.what).substr(dot + 1), 0);
    }
  }
  return false;
}

bool KernelTypes::HasEnumerator(const char* enumeration,
                                const std::string& name) const {
  const int id =
      btf__find_by_name_kind(types_.get(), enumeration, BTF_KIND_ENUM);
  if (id <= 0) return false;
  const btf_type* type = btf__type_by_id(types_.get(), id);
  const struct btf_enum* values = btf_enum(type);
  return std::any_of(values, values + btf_vlen(type), [&](const auto& value) {
    return name == btf__name_by_offset(types_.get(), value.name_off);
  });
}

bool KernelTypes::HasValue(const char* enumeration, uint32_t value) const {
  const int id =
      btf__find_by_name_kind(types_.get(), enumeration, BTF_KIND_ENUM);
  if (id <= 0) return false;
  const btf_type* type = btf__type_by_id(types_.get(), id);
  const struct btf_enum* values = btf_enum(type);
  return std::any_of(values, values + btf_vlen(type), [&](const auto& one) {
    return value == static_cast<uint32_t>(one.val);
  });
}

// Members of unnamed structures inside are the outer one's. No kernel's are as
// deep as a file may claim.
bool KernelTypes::HasMember(int structure, std::string_view member,
                            int depth) const {
  if (structure <= 0 || depth > kMaxUnnamedDepth) return false;
  const btf_type* type = btf__type_by_id(types_.get(), structure);
  if (type == nullptr || !btf_is_composite(type)) return false;
  const btf_member* members = btf_members(type);
  return std::any_of(
      members, members + btf_vlen(type), [&](const btf_member& inner) {
        const std::string_view name =
            btf__name_by_offset(types_.get(), inner.name_off);
        return name.empty()
                   ? HasMember(static_cast<int>(inner.type), member, depth + 1)
                   : name == member;
      });
}

bool HasNeeds(const Manifest& manifest, int variant) {
  return variant < manifest.message().variant_size() &&
         !manifest.message().variant(variant).need().empty();
}

absl::Status CheckNeeds(const Manifest& manifest, int variant,
                        const KernelTypes& kernel) {
  if (!HasNeeds(manifest, variant)) return absl::OkStatus();
  const v1::Manifest::Variant& wanted = manifest.message().variant(variant);
  for (int i = 0; i < wanted.need_size(); ++i) {
    const absl::Status status = kernel.Check(*ParseNeed(wanted.need(i)));
    if (status.ok()) continue;
    return manifest.RefuseAt(
        manifest.text().Where("variant", variant, "need", i),
        RefusalOf(status).reason(), status.message());
  }
  return absl::OkStatus();
}

}  // namespace bpfgrant::daemon

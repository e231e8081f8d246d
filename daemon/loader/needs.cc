#include "daemon/loader/needs.h"

#include <bpf/btf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/manifest.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

constexpr size_t kMaxSymbolBytes = 127;  // KSYM_NAME_LEN of old kernels

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

absl::StatusOr<KernelTypes> KernelTypes::Load(const std::string& file) {
  Types types(file.empty() ? btf__load_vmlinux_btf()
                           : btf__parse(file.c_str(), nullptr));
  if (types == nullptr) {
    return absl::InternalError(absl::StrCat(
        file.empty() ? "the kernel's BTF" : file, ": ", std::strerror(errno)));
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
      absl::StrCat("this kernel has no ", kind->noun, " '", need.what, "'"));
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
          std::string_view(need.what).substr(dot + 1));
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

// Members of unnamed structures inside are the outer one's.
bool KernelTypes::HasMember(int structure, std::string_view member) const {
  if (structure <= 0) return false;
  const btf_type* type = btf__type_by_id(types_.get(), structure);
  if (type == nullptr || !btf_is_composite(type)) return false;
  const btf_member* members = btf_members(type);
  return std::any_of(
      members, members + btf_vlen(type), [&](const btf_member& inner) {
        const std::string_view name =
            btf__name_by_offset(types_.get(), inner.name_off);
        return name.empty() ? HasMember(static_cast<int>(inner.type), member)
                            : name == member;
      });
}

}  // namespace bpfgrant::daemon

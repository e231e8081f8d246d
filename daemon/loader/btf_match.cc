#include "daemon/loader/btf_match.h"

#include <bpf/btf.h>

namespace bpfgrant::daemon {
namespace {

constexpr int kMaxDepth = 32;  // libbpf's, too

}  // namespace

const btf_type* BtfPlace::get() const {
  return types == nullptr ? nullptr : btf__type_by_id(types, id);
}

BtfPlace BtfPlace::Bare() const {
  BtfPlace bare = *this;
  for (int i = 0; i < kMaxDepth; ++i) {
    const btf_type* type = bare.get();
    if (type == nullptr || !(btf_is_mod(type) || btf_is_typedef(type))) break;
    bare.id = type->type;
  }
  return bare;
}

std::string_view BtfPlace::name() const {
  const btf_type* type = get();
  const char* text =
      type == nullptr ? nullptr : btf__name_by_offset(types, type->name_off);
  return text == nullptr ? "" : text;
}

std::string_view EssentialName(std::string_view name) {
  const size_t flavor = name.rfind("___");
  return flavor == std::string_view::npos || flavor == 0
             ? name
             : name.substr(0, flavor);
}

bool SameKind(const btf_type* one, const btf_type* other) {
  return btf_kind(one) == btf_kind(other) ||
         (btf_is_any_enum(one) && btf_is_any_enum(other));
}

bool FieldsMatch(BtfPlace local, BtfPlace kernels, int depth) {
  local = local.Bare();
  kernels = kernels.Bare();
  const btf_type* mine = local.get();
  const btf_type* theirs = kernels.get();
  if (mine == nullptr || theirs == nullptr || depth > kMaxDepth) return false;
  if (btf_is_composite(mine) && btf_is_composite(theirs)) return true;
  if (!SameKind(mine, theirs)) return false;
  switch (btf_kind(mine)) {
    case BTF_KIND_FWD:
    case BTF_KIND_ENUM:
    case BTF_KIND_ENUM64: {
      const std::string_view a = EssentialName(local.name());
      const std::string_view b = EssentialName(kernels.name());
      return a.empty() || b.empty() || a == b;
    }
    case BTF_KIND_ARRAY:
      return FieldsMatch({local.types, btf_array(mine)->type},
                         {kernels.types, btf_array(theirs)->type}, depth + 1);
    default:
      return true;
  }
}

bool PrototypesMatch(BtfPlace local, BtfPlace kernels, int depth) {
  local = local.Bare();
  kernels = kernels.Bare();
  const btf_type* mine = local.get();
  const btf_type* theirs = kernels.get();
  if (mine == nullptr || theirs == nullptr || depth > kMaxDepth) return false;
  if (!SameKind(mine, theirs)) return false;
  if (btf_is_ptr(mine)) {
    return PrototypesMatch({local.types, mine->type},
                           {kernels.types, theirs->type}, depth + 1);
  }
  if (btf_is_array(mine)) {
    return PrototypesMatch({local.types, btf_array(mine)->type},
                           {kernels.types, btf_array(theirs)->type}, depth + 1);
  }
  if (!btf_is_func_proto(mine)) return true;
  if (btf_vlen(mine) != btf_vlen(theirs)) return false;
  for (int i = 0; i < btf_vlen(mine); ++i) {
    if (!PrototypesMatch({local.types, btf_params(mine)[i].type},
                         {kernels.types, btf_params(theirs)[i].type},
                         depth + 1)) {
      return false;
    }
  }
  return PrototypesMatch({local.types, mine->type},
                         {kernels.types, theirs->type}, depth + 1);
}

}  // namespace bpfgrant::daemon

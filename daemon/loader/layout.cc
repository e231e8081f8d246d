#include "daemon/loader/layout.h"

#include <bpf/btf.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace bpfgrant::daemon {
namespace {

// Structures within structures; BTF made by a compiler never comes near it.
constexpr int kMaxDepth = 64;

absl::string_view NameOf(const btf* types, uint32_t offset) {
  const char* name = btf__name_by_offset(types, offset);
  return name != nullptr ? name : "";
}

// What `id` is once typedefs and qualifiers are taken off.
const btf_type* Resolve(const btf* types, uint32_t id) {
  const btf_type* type = btf__type_by_id(types, id);
  while (type != nullptr &&
         (btf_is_mod(type) || btf_is_typedef(type) || btf_is_type_tag(type))) {
    type = btf__type_by_id(types, type->type);
  }
  return type;
}

void AppendLayout(const btf* types, uint32_t id, int depth, std::string& out);

void AppendComposite(const btf* types, const btf_type* type, int depth,
                     std::string& out) {
  absl::StrAppend(&out, btf_is_union(type) ? "union " : "struct ",
                  NameOf(types, type->name_off), " ", type->size, "{");
  const btf_member* members = btf_members(type);
  for (int i = 0; i < btf_vlen(type); ++i) {
    absl::StrAppend(&out, NameOf(types, members[i].name_off), "@",
                    btf_member_bit_offset(type, i), ":",
                    btf_member_bitfield_size(type, i), " ");
    AppendLayout(types, members[i].type, depth + 1, out);
    out += ";";
  }
  out += "}";
}

void AppendEnumeration(const btf* types, const btf_type* type,
                       std::string& out) {
  absl::StrAppend(&out, "enum ", type->size, "{");
  for (int i = 0; i < btf_vlen(type); ++i) {
    if (btf_is_enum(type)) {
      const struct btf_enum& value = btf_enum(type)[i];
      absl::StrAppend(&out, NameOf(types, value.name_off), "=", value.val, ";");
    } else {
      const struct btf_enum64& value = btf_enum64(type)[i];
      absl::StrAppend(&out, NameOf(types, value.name_off), "=",
                      btf_enum64_value(&value), ";");
    }
  }
  out += "}";
}

void AppendLayout(const btf* types, uint32_t id, int depth, std::string& out) {
  const btf_type* type = id == 0 ? nullptr : Resolve(types, id);
  if (type == nullptr) {
    out += "void";
  } else if (depth > kMaxDepth) {
    out += "deep";
  } else if (btf_is_composite(type)) {
    AppendComposite(types, type, depth, out);
  } else if (btf_is_any_enum(type)) {
    AppendEnumeration(types, type, out);
  } else if (btf_is_array(type)) {
    absl::StrAppend(&out, "array ", btf_array(type)->nelems, " ");
    AppendLayout(types, btf_array(type)->type, depth + 1, out);
  } else if (btf_is_int(type)) {
    absl::StrAppend(&out, "int ", type->size, " ", btf_int_bits(type), " ",
                    btf_int_encoding(type));
  } else if (btf_is_float(type)) {
    absl::StrAppend(&out, "float ", type->size);
  } else if (btf_is_ptr(type)) {
    out += "pointer";
  } else {
    absl::StrAppend(&out, "kind ", btf_kind(type));
  }
}

void Print(void* context, const char* format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(nullptr, 0, format, again);
  va_end(again);
  if (length <= 0) return;
  auto* text = static_cast<std::string*>(context);
  const size_t used = text->size();
  text->resize(used + length + 1);
  vsnprintf(text->data() + used, length + 1, format, arguments);
  text->resize(used + length);
}

// Typedefs that the header's own #includes bring.
bool IsStandardName(std::string_view name) {
  static const auto* const kNames = new std::set<std::string_view>{
      "bool",   "size_t",  "ssize_t", "uintptr_t", "intptr_t",
      "__le16", "__le32",  "__le64",  "__be16",    "__be32",
      "__be64", "__sum16", "__wsum"};
  if (kNames->contains(name)) return true;
  for (const char* size : {"8", "16", "32", "64"}) {
    for (const char* stem : {"__u", "__s"}) {
      if (name == absl::StrCat(stem, size)) return true;
    }
    for (const char* stem : {"uint", "int", "__uint", "__int"}) {
      if (name == absl::StrCat(stem, size, "_t")) return true;
    }
  }
  return false;
}

// Drops "typedef ... NAME;" of standard names; libbpf prints each such typedef
// on a line of its own, followed by an empty one.
std::string WithoutStandardNames(const std::string& text) {
  std::string kept;
  bool dropped = false;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  for (const std::string& line : lines) {
    if (line.starts_with("typedef ") && line.ends_with(';')) {
      const std::string name =
          line.substr(line.rfind(' ') + 1, line.size() - line.rfind(' ') - 2);
      if (IsStandardName(name)) {
        dropped = true;
        continue;
      }
    }
    if (dropped && line.empty()) {
      dropped = false;
      continue;
    }
    dropped = false;
    absl::StrAppend(&kept, line, "\n");
  }
  while (kept.ends_with("\n\n")) kept.pop_back();
  return kept;
}

}  // namespace

std::string CanonicalLayout(const btf* types, uint32_t id) {
  std::string layout;
  AppendLayout(types, id, 0, layout);
  return layout;
}

uint32_t FindStructure(const btf* types, const std::string& name) {
  for (const int kind :
       {int{BTF_KIND_STRUCT}, int{BTF_KIND_UNION}, int{BTF_KIND_ENUM},
        int{BTF_KIND_ENUM64}, int{BTF_KIND_TYPEDEF}}) {
    const int id = btf__find_by_name_kind(types, name.c_str(), kind);
    if (id > 0) return static_cast<uint32_t>(id);
  }
  return 0;
}

bool NeedsDeclaration(const btf* types, uint32_t id) {
  if (id == 0) return false;
  const btf_type* type = Resolve(types, id);
  // What has no name can only be written where it is used.
  return type != nullptr && (btf_is_composite(type) || btf_is_any_enum(type)) &&
         type->name_off != 0;
}

absl::StatusOr<std::string> DeclareInC(const btf* types,
                                       absl::Span<const uint32_t> ids) {
  std::string text;
  LIBBPF_OPTS(btf_dump_opts, options);
  const std::unique_ptr<btf_dump, void (*)(btf_dump*)> dump(
      btf_dump__new(types, Print, &text, &options), btf_dump__free);
  if (dump == nullptr) {
    return absl::InternalError(
        absl::StrCat("btf_dump: ", std::strerror(errno)));
  }
  for (const uint32_t id : ids) {
    const int error = btf_dump__dump_type(dump.get(), id);
    if (error < 0) {
      return absl::InternalError(
          absl::StrCat("btf_dump: ", std::strerror(-error)));
    }
  }
  return WithoutStandardNames(text);
}

}  // namespace bpfgrant::daemon

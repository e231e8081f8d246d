#include "daemon/loader/interface.h"

#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/layout.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/object.h"
#include "policy/parameter.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

// What of the types a client sees, with the manifest's names for them.
struct Parts {
  std::string canonical;
  std::vector<uint32_t> declared;  // ids, each once, in order of appearance
};

void Declare(const btf* types, uint32_t id, Parts& parts) {
  if (!NeedsDeclaration(types, id)) return;
  if (std::find(parts.declared.begin(), parts.declared.end(), id) ==
      parts.declared.end()) {
    parts.declared.push_back(id);
  }
}

absl::Status AddStructures(const btf* types, const Manifest& manifest,
                           int index, Parts& parts) {
  const v1::Manifest::Map& map = manifest.message().map(index);
  for (int s = 0; s < map.structure_size(); ++s) {
    const uint32_t id = FindStructure(types, map.structure(s));
    if (id == 0) {
      return manifest.RefuseAt(
          manifest.text().Where("map", index, "structure", s),
          v1::REASON_OBJECT_MISMATCH,
          absl::StrCat("the object's BTF has no structure '", map.structure(s),
                       "'; a type that no map and no variable names is left "
                       "out by the compiler"));
    }
    absl::StrAppend(&parts.canonical, "structure ", map.structure(s), " ",
                    CanonicalLayout(types, id), "\n");
    Declare(types, id, parts);
  }
  return absl::OkStatus();
}

absl::Status AddHandle(const bpf_object* object, const Manifest& manifest,
                       const OfferedMap& offered, const v1::Handle& handle,
                       Parts& parts) {
  const btf* types = bpf_object__btf(object);
  const bpf_map* map = GrantMapOf(object, offered.name);
  absl::StrAppend(&parts.canonical, "handle ", handle.name(), " ",
                  v1::HandleKind_Name(handle.kind()), " ",
                  v1::Rights_Name(handle.rights()), " ", handle.key_size(), " ",
                  handle.value_size(), " ", handle.max_entries(), " ",
                  handle.mappable() ? "mappable" : "not-mappable",
                  offered.copy < 0 ? "\n" : " swappable\n");
  for (const uint32_t id :
       {bpf_map__btf_key_type_id(map), bpf_map__btf_value_type_id(map)}) {
    absl::StrAppend(&parts.canonical, "type ", CanonicalLayout(types, id),
                    "\n");
    // What a loop's status is, bpfgrant/loop_status.h says.
    if (offered.index >= 0) Declare(types, id, parts);
  }
  if (offered.index < 0) return absl::OkStatus();
  return AddStructures(types, manifest, offered.index, parts);
}

// The ring's geometry, for who runs a loop without asking the daemon.
std::string WriteGeometry(const v1::Manifest& manifest,
                          const std::string& name) {
  if (!IsLoop(manifest)) return "";
  const v1::Manifest::Loop& loop = manifest.loop();
  return absl::StrCat("#define ", name, "_SQ_ENTRIES ", loop.sq_entries(),
                      "\n#define ", name, "_CQ_ENTRIES ", loop.cq_entries(),
                      "\n#define ", name, "_MEMORY_BYTES ", loop.memory_bytes(),
                      "\n\n");
}

// Their names, for AcquireOptions.
std::string WriteParameters(const v1::Manifest& manifest,
                            const std::string& name) {
  std::string text;
  for (const v1::Parameter& parameter : manifest.parameter()) {
    absl::StrAppend(&text, "#define ", name, "_PARAMETER_",
                    absl::AsciiStrToUpper(parameter.name()), " \"",
                    parameter.name(), "\" /* ", policy::RangeOf(parameter),
                    " */\n");
  }
  return text.empty() ? text : text + "\n";
}

std::string WriteHeader(const v1::Manifest& manifest, const std::string& hash,
                        const std::string& declarations) {
  const std::string name = absl::AsciiStrToUpper(manifest.name());
  const std::string guard = absl::StrCat("BPFGRANT_INTERFACE_", name, "_H_");
  return absl::StrCat("/* What a client sees of ", manifest.interface(),
                      ". Made by bpfgrant from the object's BTF. */\n\n"
                      "#ifndef ",
                      guard, "\n#define ", guard,
                      "\n\n"
                      "#include <linux/types.h>\n#include <stdbool.h>\n"
                      "#include <stddef.h>\n#include <stdint.h>\n\n"
                      "#define ",
                      name, "_INTERFACE \"", manifest.interface(),
                      "\"\n"
                      "#define ",
                      name, "_INTERFACE_HASH \\\n  \"", hash, "\"\n\n",
                      WriteGeometry(manifest, name),
                      WriteParameters(manifest, name), declarations,
                      declarations.empty() ? "" : "\n", "#endif /* ", guard,
                      " */\n");
}

}  // namespace

absl::StatusOr<Interface> DescribeInterface(const bpf_object* object,
                                            const Manifest& manifest) {
  const v1::Manifest& message = manifest.message();
  const std::vector<v1::Handle> handles = DescribeHandles(object, message);
  Parts parts;
  parts.canonical = absl::StrCat("interface ", message.interface(), "\n");
  if (IsLoop(message)) {
    const v1::Manifest::Loop& loop = message.loop();
    absl::StrAppend(&parts.canonical, "ring ", loop.sq_entries(), " ",
                    loop.cq_entries(), " memory ", loop.memory_bytes(), "\n");
  }
  for (const v1::Parameter& parameter : message.parameter()) {
    absl::StrAppend(&parts.canonical, "parameter ", parameter.name(), " ",
                    parameter.type_case(), "\n");
  }
  auto handle = handles.begin();
  for (const OfferedMap& offered : OfferedMaps(message)) {
    if (auto status = AddHandle(object, manifest, offered, *handle++, parts);
        !status.ok()) {
      return status;
    }
  }
  Interface interface;
  interface.hash = Sha256({parts.canonical});
  if (interface.hash.empty()) {
    return absl::InternalError("OpenSSL does not compute SHA-256");
  }
  auto declarations = DeclareInC(bpf_object__btf(object), parts.declared);
  if (!declarations.ok()) return declarations.status();
  interface.header = WriteHeader(message, interface.hash, *declarations);
  if (interface.header.size() > kMaxHeaderBytes) {
    return manifest.RefuseAt(
        manifest.text().Where("interface"), v1::REASON_TOO_LARGE,
        absl::StrCat("the header of its structures has ",
                     interface.header.size(), " bytes, where at most ",
                     kMaxHeaderBytes, " may be"));
  }
  return interface;
}

}  // namespace bpfgrant::daemon

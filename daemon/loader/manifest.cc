#include "daemon/loader/manifest.h"

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/needs.h"
#include "daemon/loader/parameter_manifest.h"
#include "daemon/loader/tracing_manifest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

// The program's fd takes one place of a grant's fds.
constexpr int kMaxHandles = static_cast<int>(kMaxFdsPerGrant) - 1;

bool IsDigest(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

// "NAME/VERSION" for `name`, a version of 1 or more without leading zeros.
bool IsInterfaceOf(const std::string& text, const std::string& name) {
  if (!text.starts_with(name + "/")) return false;
  const std::string version = text.substr(name.size() + 1);
  uint32_t number;
  return !version.empty() && version.front() != '0' &&
         std::all_of(version.begin(), version.end(),
                     [](char c) { return absl::ascii_isdigit(c); }) &&
         absl::SimpleAtoi(version, &number);
}

bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' &&
         name.find('/') == std::string_view::npos;
}

absl::Status CheckTop(const TextFile& text, const v1::Manifest& manifest,
                      std::string_view stem) {
  if (!IsName(manifest.name())) {
    return text.Complain(text.Where("name"),
                         "name must be given and match [a-z][a-z0-9_]{0,62}");
  }
  if (manifest.name() != stem) {
    return text.Complain(text.Where("name"),
                         absl::StrCat("name is '", manifest.name(),
                                      "', but the file is called '",
                                      std::string(stem), ".manifest'"));
  }
  if (!IsInterfaceOf(manifest.interface(), manifest.name())) {
    return text.Complain(text.Where("interface"),
                         absl::StrCat("interface must be \"", manifest.name(),
                                      "/N\" with a version N of 1 or more"));
  }
  if (manifest.description().size() > kMaxDescriptionBytes ||
      std::any_of(manifest.description().begin(), manifest.description().end(),
                  [](unsigned char c) { return absl::ascii_iscntrl(c); })) {
    return text.Complain(
        text.Where("description"),
        absl::StrCat("description must be one line of at most ",
                     kMaxDescriptionBytes, " bytes"));
  }
  if (manifest.pool().ready() > kMaxPoolReady) {
    return text.Complain(text.Where("pool", -1, "ready"),
                         absl::StrCat("ready is at most ", kMaxPoolReady));
  }
  for (int i = 0; i < manifest.tag_size(); ++i) {
    if (!IsName(manifest.tag(i))) {
      return text.Complain(text.Where("tag", i),
                           "a tag must match [a-z][a-z0-9_]{0,62}");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckObjectFile(const TextFile& text, const std::string& object,
                             Place object_place, const std::string& sha256,
                             Place sha256_place) {
  if (!IsPlainFileName(object)) {
    return text.Complain(object_place,
                         "object must be the name of a file beside the "
                         "manifest, without '/'");
  }
  if (!IsDigest(sha256)) {
    return text.Complain(sha256_place,
                         "sha256 must be 64 lower-case hex digits");
  }
  return absl::OkStatus();
}

absl::Status CheckVariant(const TextFile& text,
                          const v1::Manifest::Variant& variant, int i) {
  const auto where = [&](std::string_view field, int index = -1) {
    return text.Where("variant", i, field, index);
  };
  if (!IsName(variant.name())) {
    return text.Complain(where("name"),
                         "a variant's name must match [a-z][a-z0-9_]{0,62}");
  }
  if (auto status = CheckObjectFile(text, variant.object(), where("object"),
                                    variant.sha256(), where("sha256"));
      !status.ok()) {
    return status;
  }
  if (!variant.function().empty() && !IsIdentifier(variant.function())) {
    return text.Complain(where("function"),
                         "function is the program's name in the object");
  }
  for (int n = 0; n < variant.need_size(); ++n) {
    if (n == kMaxNeeds) {
      return text.Complain(
          where("need", n),
          absl::StrCat("a variant has at most ", kMaxNeeds, " needs"));
    }
    if (!ParseNeed(variant.need(n)).has_value()) {
      return text.Complain(
          where("need", n),
          "a need is \"kfunc NAME\", \"helper NAME\", \"map TYPE\", \"field "
          "STRUCTURE.MEMBER\" or \"attach TYPE\"");
    }
  }
  return absl::OkStatus();
}

// Either an object or variants, which have one each.
absl::Status CheckObjects(const TextFile& text, const v1::Manifest& manifest) {
  if (manifest.variant().empty()) {
    return CheckObjectFile(text, manifest.object(), text.Where("object"),
                           manifest.sha256(), text.Where("sha256"));
  }
  for (const char* field : {"object", "sha256"}) {
    if (!(field[0] == 'o' ? manifest.object() : manifest.sha256()).empty()) {
      return text.Complain(text.Where(field),
                           absl::StrCat(field, " stands in each variant"));
    }
  }
  std::set<std::string> names;
  for (int i = 0; i < manifest.variant_size(); ++i) {
    if (i == kMaxVariants) {
      return text.Complain(
          text.Where("variant", i),
          absl::StrCat("a program has at most ", kMaxVariants, " variants"));
    }
    const v1::Manifest::Variant& variant = manifest.variant(i);
    if (auto status = CheckVariant(text, variant, i); !status.ok()) {
      return status;
    }
    if (!names.insert(variant.name()).second) {
      return text.Complain(
          text.Where("variant", i, "name"),
          absl::StrCat("variant '", variant.name(), "' is named twice"));
    }
  }
  return absl::OkStatus();
}

// A tun device takes socket filters; the others take one type each.
bool Fits(v1::Target target, v1::Manifest::Type type) {
  switch (target) {
    case v1::TARGET_UNSPECIFIED:
      return true;
    case v1::TARGET_REUSEPORT:
      return type == v1::Manifest::SK_REUSEPORT;
    case v1::TARGET_SOCKET:
    case v1::TARGET_TUN:
      return type == v1::Manifest::SOCKET_FILTER;
    default:
      return false;
  }
}

absl::Status CheckProgram(const TextFile& text, const v1::Manifest& manifest) {
  if (!manifest.has_program()) {
    return text.Complain(text.Where("program"), "program is missing");
  }
  const v1::Manifest::Program& program = manifest.program();
  if (!IsTracing(manifest) && !IsIdentifier(program.function())) {
    return text.Complain(text.Where("program", -1, "function"),
                         "function must be given: its name in the object");
  }
  if (program.type() == v1::Manifest::TYPE_UNSPECIFIED) {
    return text.Complain(text.Where("program", -1, "type"),
                         "type must be given: SOCKET_FILTER, SK_REUSEPORT, "
                         "IO_URING_LOOP or TRACING");
  }
  if (program.delivery().empty()) {
    return text.Complain(text.Where("program", -1, "delivery"),
                         "delivery must be given: DELIVERY_PROGRAM, "
                         "DELIVERY_ATTACH, or both; of a loop DELIVERY_RING, "
                         "of a tracing program DELIVERY_PROCESS");
  }
  if (!Fits(program.target(), program.type())) {
    return text.Complain(text.Where("program", -1, "target"),
                         absl::StrCat("a program of type ",
                                      v1::Manifest::Type_Name(program.type()),
                                      " is not attached to that"));
  }
  if (IsLoop(manifest) || IsTracing(manifest)) return absl::OkStatus();
  std::set<int> seen;
  for (int i = 0; i < program.delivery_size(); ++i) {
    const v1::Delivery delivery = program.delivery(i);
    if (delivery != v1::DELIVERY_PROGRAM && delivery != v1::DELIVERY_ATTACH) {
      return text.Complain(text.Where("program", -1, "delivery", i),
                           "a delivery is DELIVERY_PROGRAM or DELIVERY_ATTACH");
    }
    if (!seen.insert(delivery).second) {
      return text.Complain(text.Where("program", -1, "delivery", i),
                           "this delivery stands here twice");
    }
  }
  if (program.on_revoke() == v1::Manifest::ON_REVOKE_UNSPECIFIED) {
    return text.Complain(text.Where("program", -1, "on_revoke"),
                         "on_revoke must be given: PASS, DROP or NOTHING");
  }
  return absl::OkStatus();
}

// What is wrong with map `i` by itself, if anything.
absl::Status CheckMap(const TextFile& text, const v1::Manifest::Map& map,
                      int i) {
  const auto complain = [&](std::string_view field, std::string_view what) {
    return text.Complain(text.Where("map", i, field), what);
  };
  if (!IsIdentifier(map.name())) {
    return complain("name", "name must be given: the map's name in the object");
  }
  if (map.kind() == v1::HANDLE_KIND_UNSPECIFIED ||
      map.kind() == v1::HANDLE_KIND_PROGRAM) {
    return complain("kind", absl::StrCat("the kind of map '", map.name(),
                                         "' must be given"));
  }
  if (map.scope() == v1::Manifest::SCOPE_SESSION &&
      map.kind() != v1::HANDLE_KIND_ARRAY &&
      map.kind() != v1::HANDLE_KIND_HASH) {
    return complain("scope", "SCOPE_SESSION is for arrays and hashes");
  }
  if (map.swappable()) {
    if (map.kind() != v1::HANDLE_KIND_ARRAY &&
        map.kind() != v1::HANDLE_KIND_HASH &&
        map.kind() != v1::HANDLE_KIND_PERCPU_ARRAY &&
        map.kind() != v1::HANDLE_KIND_LPM_TRIE) {
      return complain("swappable", "only arrays, hashes and LPM tries can be");
    }
    if (map.scope() == v1::Manifest::SCOPE_SESSION || map.handle().empty()) {
      return complain("swappable",
                      "a swappable map has a handle, and SCOPE_GRANT");
    }
  }
  if (map.handle().empty()) {
    if (map.rights() != v1::RIGHTS_UNSPECIFIED) {
      return complain("rights", "rights are for maps with a handle");
    }
    if (!map.structure().empty()) {
      return text.Complain(text.Where("map", i, "structure", 0),
                           "structures are for maps with a handle");
    }
    return absl::OkStatus();
  }
  if (!IsName(map.handle())) {
    return complain("handle",
                    "a handle's name must match [a-z][a-z0-9_]{0,62}");
  }
  if (map.rights() == v1::RIGHTS_UNSPECIFIED) {
    return complain("rights", absl::StrCat("the rights of handle '",
                                           map.handle(), "' must be given"));
  }
  // Each end of a ring buffer writes its position, and the kernel maps no
  // narrowed fd.
  if ((map.kind() == v1::HANDLE_KIND_RING_BUFFER ||
       map.kind() == v1::HANDLE_KIND_USER_RING_BUFFER) &&
      map.rights() != v1::RIGHTS_READ_WRITE) {
    return complain("rights", "a ring buffer's handle needs RIGHTS_READ_WRITE");
  }
  for (int s = 0; s < map.structure_size(); ++s) {
    if (!IsIdentifier(map.structure(s))) {
      return text.Complain(text.Where("map", i, "structure", s),
                           "a structure is named as in C, without 'struct'");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMaps(const TextFile& text, const v1::Manifest& manifest) {
  std::set<std::string> names, handles;
  int swappable = 0;
  for (int i = 0; i < manifest.map_size(); ++i) {
    const v1::Manifest::Map& map = manifest.map(i);
    if (auto status = CheckMap(text, map, i); !status.ok()) return status;
    if (!names.insert(map.name()).second) {
      return text.Complain(
          text.Where("map", i, "name"),
          absl::StrCat("map '", map.name(), "' is named twice"));
    }
    if (map.handle().empty()) continue;
    if (!handles.insert(map.handle()).second) {
      return text.Complain(
          text.Where("map", i, "handle"),
          absl::StrCat("handle '", map.handle(), "' is named twice"));
    }
    if (IsLoop(manifest) && map.handle() == kLoopStatusHandle) {
      return text.Complain(text.Where("map", i, "handle"),
                           "a loop's handle 'status' is the daemon's own");
    }
    if (IsTracing(manifest) && map.swappable()) {
      return text.Complain(text.Where("map", i, "swappable"),
                           "a tracing program's maps are a grant's each: none "
                           "of them is swappable");
    }
    if (IsUnrevocable(manifest) && map.swappable()) {
      return text.Complain(text.Where("map", i, "swappable"),
                           "the gate turns maps over: on_revoke NOTHING has "
                           "none");
    }
    swappable += map.swappable();
    if (static_cast<int>(handles.size()) + swappable > kMaxHandles) {
      return text.Complain(
          text.Where("map", i, "handle"),
          absl::StrCat("a program has at most ", kMaxHandles,
                       " handles, of which a swappable map takes two"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

v1::Target TargetOf(const v1::Manifest::Program& program) {
  if (program.target() != v1::TARGET_UNSPECIFIED) return program.target();
  switch (program.type()) {
    case v1::Manifest::SOCKET_FILTER:
      return v1::TARGET_SOCKET;
    case v1::Manifest::SK_REUSEPORT:
      return v1::TARGET_REUSEPORT;
    default:
      return v1::TARGET_UNSPECIFIED;
  }
}

bool IsUnrevocable(const v1::Manifest& manifest) {
  return manifest.program().on_revoke() == v1::Manifest::NOTHING;
}

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes &&
         absl::ascii_islower(name.front()) &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_';
         });
}

bool IsIdentifier(std::string_view name, size_t most) {
  return !name.empty() && name.size() <= most &&
         !absl::ascii_isdigit(name.front()) &&
         std::all_of(name.begin(), name.end(),
                     [](char c) { return absl::ascii_isalnum(c) || c == '_'; });
}

absl::StatusOr<std::unique_ptr<Manifest>> Manifest::Parse(
    std::string file, std::string_view stem, std::string_view bytes,
    absl::Span<const DropIn> drop_ins) {
  std::unique_ptr<Manifest> manifest(new Manifest(std::move(file)));
  TextFile& text = manifest->text_;
  v1::Manifest& message = manifest->message_;
  if (auto status = text.Parse(bytes, message); !status.ok()) return status;
  if (auto status = CheckTop(text, message, stem); !status.ok()) return status;
  if (auto status = CheckObjects(text, message); !status.ok()) return status;
  if (auto status = CheckProgram(text, message); !status.ok()) return status;
  if (auto status = CheckLoop(text, message); !status.ok()) return status;
  if (auto status = CheckTracing(text, message); !status.ok()) return status;
  if (auto status = CheckMaps(text, message); !status.ok()) return status;
  for (const DropIn& drop_in : drop_ins) {
    if (auto status = ApplyDropIn(drop_in, message); !status.ok()) {
      return status;
    }
  }
  if (auto status = CheckParameters(text, message); !status.ok()) return status;
  return manifest;
}

void Manifest::Choose(int variant) {
  variant_ = variant;
  const v1::Manifest::Variant& chosen = message_.variant(variant);
  message_.set_object(chosen.object());
  message_.set_sha256(chosen.sha256());
  if (!chosen.function().empty()) {
    message_.mutable_program()->set_function(chosen.function());
  }
  if (!chosen.hook().empty()) *message_.mutable_hook() = chosen.hook();
}

Place Manifest::At(std::string_view field) const {
  if (field == "function") {
    return variant_ < 0 || message_.variant(variant_).function().empty()
               ? text_.Where("program", -1, field)
               : text_.Where("variant", variant_, field);
  }
  if (field == "hook" && variant_ >= 0 &&
      message_.variant(variant_).hook().empty()) {
    return text_.Where(field);
  }
  return variant_ < 0 ? text_.Where(field)
                      : text_.Where("variant", variant_, field);
}

absl::Status Manifest::RefuseAt(Place place, v1::Reason reason,
                                absl::string_view what) const {
  return Refuse(reason, absl::StrCat(text_.name(), ":", place.line, ":",
                                     place.column, ": ", what));
}

}  // namespace bpfgrant::daemon

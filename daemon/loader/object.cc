#include "daemon/loader/object.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/parameter_object.h"
#include "daemon/loader/references.h"
#include "daemon/loader/tracing_manifest.h"
#include "daemon/loader/tracing_object.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

constexpr char kGateSlot[] = "bpfgrant_gate_slot";
constexpr char kGateNonce[] = "bpfgrant_gate_nonce";
constexpr char kOnRevoke[] = "bpfgrant_on_revoke";
// Above this, only the end of what libbpf says is kept. Bytes.
constexpr size_t kMaxLogBytes = 64 * 1024;

thread_local std::string* current_log = nullptr;

int Catch(libbpf_print_level level, const char* format, va_list arguments) {
  if (current_log == nullptr || level == LIBBPF_DEBUG) return 0;
  std::array<char, 4096> line;
  const int length = vsnprintf(line.data(), line.size(), format, arguments);
  if (length <= 0) return 0;
  current_log->append(line.data(), std::min<size_t>(length, line.size() - 1));
  if (current_log->size() > kMaxLogBytes) {
    current_log->erase(0, current_log->size() - kMaxLogBytes);
  }
  return length;
}

bool IsRingBuffer(const bpf_map* map) {
  return bpf_map__type(map) == BPF_MAP_TYPE_RINGBUF ||
         bpf_map__type(map) == BPF_MAP_TYPE_USER_RINGBUF;
}

// The section of the gate's constants (gate.bpf.h).
constexpr char kGateSection[] = ".rodata.gate";

// Where a constant stands in its section; null if there is none.
const btf_var_secinfo* FindConstant(const bpf_object* object,
                                    std::string_view section_name,
                                    std::string_view name) {
  const btf* types = bpf_object__btf(object);
  if (types == nullptr) return nullptr;
  const int id = btf__find_by_name_kind(
      types, std::string(section_name).c_str(), BTF_KIND_DATASEC);
  if (id < 0) return nullptr;
  const btf_type* section = btf__type_by_id(types, id);
  const btf_var_secinfo* variables = btf_var_secinfos(section);
  for (int i = 0; i < btf_vlen(section); ++i) {
    const btf_type* variable = btf__type_by_id(types, variables[i].type);
    if (btf_is_var(variable) &&
        name == btf__name_by_offset(types, variable->name_off)) {
      return &variables[i];
    }
  }
  return nullptr;
}

// The map of a section of globals; null if the object has none. libbpf puts the
// object's name before those of the sections that every object can have.
bpf_map* SectionMap(const bpf_object* object, std::string_view section) {
  bpf_map* map;
  bpf_object__for_each_map(map, object) {
    if (!bpf_map__is_internal(map)) continue;
    const std::string_view name = bpf_map__name(map);
    if (name == section || (section == ".rodata" && name.ends_with(section))) {
      return map;
    }
  }
  return nullptr;
}

absl::Status SetGateConstant(const bpf_object* object, const char* name,
                             const void* value, size_t size) {
  if (SetConstant(object, kGateSection, name, value, size)) {
    return absl::OkStatus();
  }
  return Refuse(v1::REASON_GATE_MISSING,
                absl::StrCat("the object has no constant '", name, "' of ",
                             size, " bytes"));
}

// Maps that neither the program uses nor a client gets are not made: another
// program's may be of a kind that this kernel does not know.
void LeaveOutUnusedMaps(const bpf_object* object, std::string_view bytes,
                        const v1::Manifest& manifest) {
  // A loop's structure is a map that no code refers to.
  if (IsLoop(manifest)) return;
  std::set<std::string> kept =
      ReadReferences(bytes, manifest.program().function()).maps;
  kept.insert(kGateMap);
  for (OfferedMap& offered : OfferedMaps(manifest)) {
    kept.insert(std::move(offered.name));
  }
  for (std::string& name : SessionMaps(manifest)) {
    kept.insert(std::move(name));
  }
  bpf_map* map;
  bpf_object__for_each_map(map, object) {
    if (!bpf_map__is_internal(map) && !kept.contains(bpf_map__name(map))) {
      bpf_map__set_autocreate(map, false);
    }
  }
}

}  // namespace

void BpfObjectCloser::operator()(bpf_object* object) const {
  bpf_object__close(object);
}

LibbpfLog::LibbpfLog() : outer_(current_log) {
  libbpf_set_print(Catch);
  current_log = &text_;
}

LibbpfLog::~LibbpfLog() { current_log = outer_; }

std::string LibbpfLog::LastLine() const {
  std::string_view left = text_, line;
  while (!left.empty()) {
    const size_t end = std::min(left.find('\n'), left.size());
    std::string_view next = left.substr(0, end);
    left.remove_prefix(std::min(end + 1, left.size()));
    if (next.starts_with("libbpf: ")) next.remove_prefix(8);
    // That it failed, after why.
    if (!next.empty() &&
        (line.empty() || !next.starts_with("failed to load"))) {
      line = next;
    }
  }
  return Printable(line);
}

std::string Printable(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (!absl::ascii_isprint(c) && c != '\n' && c != '\t') c = '?';
  }
  return result;
}

bool MayPass(int error) {
  return error == ENOMEM || error == ENFILE || error == EMFILE ||
         error == EAGAIN || error == EINTR;
}

absl::Status RefuseWhatMayPass(const char* what, int error) {
  return Refuse(v1::REASON_BUSY,
                absl::StrCat(what, " failed, which a reload may mend: ",
                             std::strerror(error)));
}

absl::StatusOr<BpfObject> OpenObject(std::string_view bytes,
                                     const std::string& name) {
  const LibbpfLog log;
  LIBBPF_OPTS(bpf_object_open_opts, options, .object_name = name.c_str());
  bpf_object* object =
      bpf_object__open_mem(bytes.data(), bytes.size(), &options);
  if (object == nullptr) {
    const int error = errno;
    const std::string said = log.LastLine();
    if (MayPass(error)) return RefuseWhatMayPass("opening it", error);
    return Refuse(v1::REASON_FILE_INVALID,
                  absl::StrCat("it is no BPF object that libbpf understands: ",
                               said.empty() ? std::strerror(error) : said));
  }
  return BpfObject(object);
}

absl::StatusOr<BpfObject> OpenProgram(std::string_view bytes,
                                      const v1::Manifest& manifest) {
  auto object = OpenObject(bytes, manifest.name());
  // All that a tracing program's object has is its own.
  if (!object.ok() || IsTracing(manifest)) return object;
  const bpf_program* wanted = FindProgram(object->get(), manifest);
  bpf_program* program;
  bpf_object__for_each_program(program, object->get()) {
    bpf_program__set_autoload(program, program == wanted);
  }
  LeaveOutUnusedMaps(object->get(), bytes, manifest);
  return object;
}

bpf_program* FindProgram(const bpf_object* object,
                         const v1::Manifest& manifest) {
  return bpf_object__find_program_by_name(
      object,
      IsLoop(manifest) ? kLoopEntry : manifest.program().function().c_str());
}

bpf_program* ProgramOf(const bpf_object* object) {
  bpf_program* program;
  bpf_object__for_each_program(program, object) {
    if (bpf_program__autoload(program)) return program;
  }
  return nullptr;
}

bpf_map* GateOf(const bpf_object* object) { return MapOf(object, kGateMap); }

bpf_map* MapOf(const bpf_object* object, const std::string& name) {
  return bpf_object__find_map_by_name(object, name.c_str());
}

GatePlace GateSlotOf(const bpf_object* object) {
  return {bpf_map__fd(SectionMap(object, kGateSection)),
          FindConstant(object, kGateSection, kGateSlot)->offset};
}

bpf_map* GrantMapOf(const bpf_object* object, const std::string& name) {
  bpf_map* map = MapOf(object, name);
  bpf_map* each = map == nullptr ? nullptr : bpf_map__inner_map(map);
  return each != nullptr ? each : map;
}

const char* MissingGateConstant(const bpf_object* object) {
  for (const char* name : {kGateSlot, kGateNonce, kOnRevoke}) {
    if (FindConstant(object, kGateSection, name) == nullptr) return name;
  }
  return nullptr;
}

void ForgetConstants(bpf_object* object) {
  for (const char* section : {kGateSection, kParameterSection}) {
    bpf_map* constants = SectionMap(object, section);
    if (constants == nullptr) continue;
    bpf_map__set_map_flags(constants,
                           bpf_map__map_flags(constants) & ~BPF_F_RDONLY_PROG);
  }
}

size_t SizeOfConstant(const bpf_object* object, std::string_view section,
                      std::string_view name) {
  const btf_var_secinfo* place = FindConstant(object, section, name);
  return place == nullptr ? 0 : place->size;
}

bool SetConstant(const bpf_object* object, std::string_view section,
                 std::string_view name, const void* value, size_t size) {
  const btf_var_secinfo* place = FindConstant(object, section, name);
  bpf_map* map = SectionMap(object, section);
  size_t bytes = 0;
  void* data = map == nullptr ? nullptr : bpf_map__initial_value(map, &bytes);
  if (place == nullptr || data == nullptr || place->size != size ||
      place->offset + size > bytes) {
    return false;
  }
  std::memcpy(static_cast<char*>(data) + place->offset, value, size);
  return true;
}

absl::Status SetGate(bpf_object* object, uint32_t slot, uint64_t nonce,
                     v1::Manifest::OnRevoke on_revoke) {
  const auto answer = static_cast<uint32_t>(on_revoke);
  if (auto status = SetGateConstant(object, kGateSlot, &slot, sizeof(slot));
      !status.ok()) {
    return status;
  }
  if (auto status = SetGateConstant(object, kGateNonce, &nonce, sizeof(nonce));
      !status.ok()) {
    return status;
  }
  return SetGateConstant(object, kOnRevoke, &answer, sizeof(answer));
}

v1::Handle DescribeHandle(const bpf_map* map, std::string name,
                          v1::HandleKind kind, v1::Rights rights) {
  v1::Handle handle;
  handle.set_name(std::move(name));
  handle.set_kind(kind);
  handle.set_rights(rights);
  handle.set_key_size(bpf_map__key_size(map));
  handle.set_value_size(bpf_map__value_size(map));
  handle.set_max_entries(bpf_map__max_entries(map));
  // The kernel maps no narrowed fd, whatever the map's flags say.
  handle.set_mappable(
      rights == v1::RIGHTS_READ_WRITE &&
      (IsRingBuffer(map) || (bpf_map__map_flags(map) & BPF_F_MMAPABLE) != 0));
  return handle;
}

std::vector<v1::Handle> DescribeHandles(const bpf_object* object,
                                        const v1::Manifest& manifest) {
  std::vector<v1::Handle> handles;
  for (const OfferedMap& offered : OfferedMaps(manifest)) {
    const bpf_map* map = GrantMapOf(object, offered.name);
    if (map == nullptr) continue;
    handles.push_back(
        DescribeHandle(map, offered.handle, offered.kind, offered.rights));
    if (offered.copy >= 0) {
      handles.back().set_swappable(manifest.map(offered.index).handle());
    }
  }
  return handles;
}

std::vector<OfferedMap> OfferedMaps(const v1::Manifest& manifest) {
  std::vector<OfferedMap> offered;
  if (IsLoop(manifest)) {
    offered.push_back({kLoopStatusMap, kLoopStatusHandle, v1::HANDLE_KIND_ARRAY,
                       v1::RIGHTS_READ_WRITE, -1});
  }
  for (int i = 0; i < manifest.map_size(); ++i) {
    const v1::Manifest::Map& map = manifest.map(i);
    if (map.handle().empty()) continue;
    if (!map.swappable()) {
      offered.push_back(
          {map.name(), map.handle(), map.kind(), map.rights(), i});
      continue;
    }
    for (int copy = 0; copy < 2; ++copy) {
      offered.push_back({map.name(), absl::StrCat(map.handle(), ".", copy),
                         map.kind(), map.rights(), i, copy});
    }
  }
  return offered;
}

std::optional<uint32_t> KernelMapType(v1::HandleKind kind) {
  switch (kind) {
    case v1::HANDLE_KIND_RING_BUFFER:
      return BPF_MAP_TYPE_RINGBUF;
    case v1::HANDLE_KIND_ARRAY:
      return BPF_MAP_TYPE_ARRAY;
    case v1::HANDLE_KIND_HASH:
      return BPF_MAP_TYPE_HASH;
    case v1::HANDLE_KIND_SOCKET_ARRAY:
      return BPF_MAP_TYPE_REUSEPORT_SOCKARRAY;
    case v1::HANDLE_KIND_PERCPU_ARRAY:
      return BPF_MAP_TYPE_PERCPU_ARRAY;
    case v1::HANDLE_KIND_USER_RING_BUFFER:
      return BPF_MAP_TYPE_USER_RINGBUF;
    case v1::HANDLE_KIND_LPM_TRIE:
      return BPF_MAP_TYPE_LPM_TRIE;
    default:
      return std::nullopt;
  }
}

std::string TypeName(v1::Manifest::Type type) {
  const char* name =
      libbpf_bpf_prog_type_str(static_cast<bpf_prog_type>(KernelType(type)));
  return name != nullptr ? name : "unspec";
}

uint32_t KernelType(v1::Manifest::Type type) {
  switch (type) {
    case v1::Manifest::SOCKET_FILTER:
      return BPF_PROG_TYPE_SOCKET_FILTER;
    case v1::Manifest::SK_REUSEPORT:
      return BPF_PROG_TYPE_SK_REUSEPORT;
    case v1::Manifest::IO_URING_LOOP:
      return BPF_PROG_TYPE_STRUCT_OPS;
    case v1::Manifest::TRACING:
      return BPF_PROG_TYPE_TRACING;
    default:
      return BPF_PROG_TYPE_UNSPEC;
  }
}

}  // namespace bpfgrant::daemon

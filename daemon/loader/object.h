// A BPF object opened from memory, and whether it is what its manifest says.
//
// It must not load anything into the kernel.

#ifndef DAEMON_LOADER_OBJECT_H_
#define DAEMON_LOADER_OBJECT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/messages.pb.h"
#include "daemon/loader/manifest.h"

struct bpf_map;
struct bpf_object;
struct bpf_program;

namespace bpfgrant::daemon {

struct BpfObjectCloser {
  void operator()(bpf_object* object) const;
};
// Owns the object and every fd that loading it opens; a loaded program keeps
// its maps alive without it.
using BpfObject = std::unique_ptr<bpf_object, BpfObjectCloser>;

// Catches what libbpf has to say on this thread while it lives; nothing of it
// ever reaches standard error. The innermost one gets it.
class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  // The last line in which libbpf gave a reason, without its "libbpf: "; "" if
  // it said nothing.
  std::string LastLine() const;

 private:
  std::string text_;
  std::string* outer_;
};

// `text` out of an object, of libbpf's or of the verifier's, fit for a message:
// what is neither printable ASCII nor a line's end becomes '?'. Such text can
// hold any byte, and a proto string must be UTF-8.
std::string Printable(std::string_view text);

// Whether the same call may do better another time (memory, fds, a signal).
bool MayPass(int error);
// REASON_BUSY: `what` failed with such an error.
absl::Status RefuseWhatMayPass(const char* what, int error);

// Opens `bytes`. libbpf copies what it needs of them.
// `name` is what libbpf names the object's internal maps after.
// REASON_FILE_INVALID: not a BPF object, with libbpf's words.
absl::StatusOr<BpfObject> OpenObject(std::string_view bytes,
                                     const std::string& name);
// The same of a program's object: of the programs in it the one that `manifest`
// names will be loaded and no other, and of the maps not those that only others
// use.
absl::StatusOr<BpfObject> OpenProgram(std::string_view bytes,
                                      const v1::Manifest& manifest);

// The program that the manifest names, of a loop the entry, by which that is
// called; null: the object has none.
bpf_program* FindProgram(const bpf_object* object,
                         const v1::Manifest& manifest);
// The program that is loaded of an object that CheckObject found good.
bpf_program* ProgramOf(const bpf_object* object);
// The gate of an object that CheckObject found good.
bpf_map* GateOf(const bpf_object* object);
// A map of it by name.
bpf_map* MapOf(const bpf_object* object, const std::string& name);
// What one grant has of it: that map, or, of an array of maps that is not
// loaded yet, a map as those in it are.
bpf_map* GrantMapOf(const bpf_object* object, const std::string& name);

// Sets the variables of the gate before a load.
// REASON_GATE_MISSING: it has none.
absl::Status SetGate(bpf_object* object, uint32_t slot, uint64_t nonce,
                     v1::Manifest::OnRevoke on_revoke);

// Sets the constant `name` of a section of read-only globals before a load.
// False: there is none of `size` bytes.
bool SetConstant(const bpf_object* object, std::string_view section,
                 std::string_view name, const void* value, size_t size);

// Bytes of the constant `name` of that section; 0: there is none.
size_t SizeOfConstant(const bpf_object* object, std::string_view section,
                      std::string_view name);

// Of a loaded object: where its program finds the number of its slot.
struct GatePlace {
  int map;          // the fd of a section of constants
  uint32_t offset;  // bytes
};
GatePlace GateSlotOf(const bpf_object* object);

// The name of a variable of the gate that it lacks; null: it has them all.
const char* MissingGateConstant(const bpf_object* object);

// Has the verifier take the variables of the gate, and those of parameters, for
// unknown: their sections are then no constants to it. For a trial only; before
// a load.
void ForgetConstants(bpf_object* object);

// A map that a client gets a handle of.
struct OfferedMap {
  std::string name;
  std::string handle;
  v1::HandleKind kind;
  v1::Rights rights;
  int index;      // in the manifest; -1: it is the entry's of a loop
  int copy = -1;  // which of a swappable map's two
};
// All of them, in the order of a grant's handles.
std::vector<OfferedMap> OfferedMaps(const v1::Manifest& manifest);

// What a client gets, in that order, as the object has it.
std::vector<v1::Handle> DescribeHandles(const bpf_object* object,
                                        const v1::Manifest& manifest);

// The map that all instances share beside those of a loop (loop_object.h).
inline constexpr char kGateMap[] = "bpfgrant_gate";

// The kernel's type of a map of that kind (enum bpf_map_type).
std::optional<uint32_t> KernelMapType(v1::HandleKind kind);

// "socket_filter", as libbpf names it.
std::string TypeName(v1::Manifest::Type type);
// The kernel's number of it (enum bpf_prog_type).
uint32_t KernelType(v1::Manifest::Type type);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_OBJECT_H_

#include "tests/catalog/catalog_fixture.h"

#include <bpf/bpf.h>
#include <sys/capability.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/safe_file.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {

bool HasBpf() {
  cap_t held = cap_get_proc();
  cap_flag_value_t value = CAP_CLEAR;
  cap_get_flag(held, CAP_BPF, CAP_EFFECTIVE, &value);
  cap_free(held);
  return value == CAP_SET;
}

std::string ObjectBytes(const std::string& variant) {
  std::ifstream file(
      absl::StrCat(OBJECT_FOLDER, "/catalog_", variant, ".bpf.o"),
      std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string SampleManifest(const std::string& name, std::string_view object,
                           const std::string& from, const std::string& to) {
  std::string text =
      absl::StrCat("name: \"", name, "\"\ninterface: \"", name, "/1\"\n",
                   "description: \"a sample\"\nobject: \"", name,
                   ".bpf.o\"\nsha256: \"", Sha256({object}), "\"\n",
                   R"(program {
  function: "sample"
  type: SOCKET_FILTER
  delivery: DELIVERY_PROGRAM
  delivery: DELIVERY_ATTACH
  on_revoke: DROP
}
map {
  name: "events"
  kind: HANDLE_KIND_RING_BUFFER
  handle: "events"
  rights: RIGHTS_READ_WRITE
  structure: "sample_event"
}
map {
  name: "config"
  kind: HANDLE_KIND_ARRAY
  handle: "config"
  rights: RIGHTS_READ_WRITE
}
map {
  name: "counters"
  kind: HANDLE_KIND_ARRAY
  handle: "counters"
  rights: RIGHTS_READ
}
map {
  name: "orders"
  kind: HANDLE_KIND_HASH
  handle: "orders"
  rights: RIGHTS_WRITE
}
)");
  if (from.empty()) return text;
  EXPECT_NE(text.find(from), std::string::npos) << from;
  return absl::StrReplaceAll(text, {{from, to}});
}

std::string SteerManifest(const std::string& name, std::string_view object) {
  return absl::StrCat("name: \"", name, "\"\ninterface: \"", name,
                      "/1\"\nobject: \"", name, ".bpf.o\"\nsha256: \"",
                      Sha256({object}), "\"\n",
                      R"(program {
  function: "steer"
  type: SK_REUSEPORT
  delivery: DELIVERY_PROGRAM
  delivery: DELIVERY_ATTACH
  on_revoke: PASS
}
map {
  name: "sockets"
  kind: HANDLE_KIND_SOCKET_ARRAY
  handle: "sockets"
  rights: RIGHTS_READ_WRITE
}
)");
}

std::string TemporaryFolder::Write(const std::string& name,
                                   std::string_view bytes) const {
  const std::string path = absl::StrCat(path_, "/", name);
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  EXPECT_TRUE(file.good()) << path;
  chmod(path.c_str(), 0644);
  return path;
}

void TemporaryFolder::WriteProgram(const std::string& name,
                                   const std::string& variant) const {
  const std::string object = ObjectBytes(variant);
  Write(name + ".bpf.o", object);
  Write(name + ".manifest", variant == "steer" ? SteerManifest(name, object)
                                               : SampleManifest(name, object));
}

std::shared_ptr<const Program> AdmitFrom(const std::string& folder,
                                         const std::string& name,
                                         Admission& admission) {
  const auto open = SafeDirectory::Open(folder, admission.mitigations());
  EXPECT_TRUE(open.ok()) << open.status();
  const std::string file = absl::StrCat(name, ".manifest");
  const auto bytes = open->Read(file, kMaxTextFileBytes);
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  return admission.Admit(*open, file, bytes->view());
}

std::shared_ptr<const Program> AdmitFrom(const std::string& folder,
                                         const std::string& name,
                                         const Mitigations& mitigations) {
  auto admission = Admission::Create({}, mitigations);
  EXPECT_TRUE(admission.ok()) << admission.status();
  return AdmitFrom(folder, name, *admission);
}

v1::Reason ReasonFor(const Program& program) {
  return program.entry.description().summary().reason();
}

const std::string& RefusalFor(const Program& program) {
  return program.entry.description().refusal();
}

int RunFilter(int program) {
  const std::array<unsigned char, 64> packet{};
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(),
              .data_size_in = packet.size(), .repeat = 1);
  if (bpf_prog_test_run_opts(program, &options) < 0) return -1;
  return static_cast<int>(options.retval);
}

int MakeGate(uint32_t slot, uint64_t nonce) {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_MMAPABLE);
  const int gate =
      bpf_map_create(BPF_MAP_TYPE_ARRAY, "test_gate", sizeof(uint32_t),
                     sizeof(bpfgrant_gate_entry), kGateSlots, &options);
  const bpfgrant_gate_entry open = {.nonce = nonce, .swaps = 0};
  if (gate >= 0) bpf_map_update_elem(gate, &slot, &open, BPF_ANY);
  return gate;
}

}  // namespace bpfgrant::daemon

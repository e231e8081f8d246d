#include "tests/privileged/loaded_program.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

std::string CatalogFolder() {
  const char* given = std::getenv("BPFGRANT_TEST_CATALOG");
  return given != nullptr ? given : CATALOG_FOLDER;
}

// libbpf's words go nowhere unless it is a failure's.
int PrintWarnings(libbpf_print_level level, const char* format, va_list list) {
  return level == LIBBPF_WARN ? std::vfprintf(stderr, format, list) : 0;
}

// Where a global lies in its section.
bool FindVariable(const btf* types, const char* name, uint32_t& offset,
                  uint32_t& size) {
  const int section_id =
      btf__find_by_name_kind(types, ".rodata.gate", BTF_KIND_DATASEC);
  if (section_id < 0) return false;
  const btf_type* section = btf__type_by_id(types, section_id);
  const btf_var_secinfo* entries = btf_var_secinfos(section);
  for (uint32_t i = 0; i < btf_vlen(section); ++i) {
    const btf_type* variable = btf__type_by_id(types, entries[i].type);
    if (std::string_view(btf__name_by_offset(types, variable->name_off)) ==
        name) {
      offset = entries[i].offset;
      size = entries[i].size;
      return true;
    }
  }
  return false;
}

}  // namespace

std::unique_ptr<LoadedProgram> LoadedProgram::Load(const std::string& name,
                                                   const LoadOptions& options) {
  libbpf_set_print(PrintWarnings);
  const std::string path = CatalogFolder() + "/" + name + ".bpf.o";
  std::unique_ptr<LoadedProgram> loaded(new LoadedProgram);
  loaded->object_.reset(bpf_object__open_file(path.c_str(), nullptr));
  if (loaded->object_ == nullptr) {
    ADD_FAILURE() << path << ": " << std::strerror(errno);
    return nullptr;
  }
  if (!loaded->SetConstant("bpfgrant_gate_slot", &kSlot, sizeof(kSlot)) ||
      !loaded->SetConstant("bpfgrant_gate_nonce", &options.nonce,
                           sizeof(options.nonce)) ||
      !loaded->SetConstant("bpfgrant_on_revoke", &options.on_revoke,
                           sizeof(options.on_revoke))) {
    ADD_FAILURE() << name << " lacks a variable of the gate";
    return nullptr;
  }
  if (options.read_only_gate && !loaded->UseReadOnlyGate()) return nullptr;
  if (bpf_object__load(loaded->object_.get()) < 0) {
    ADD_FAILURE() << name << " does not load: " << std::strerror(errno);
    return nullptr;
  }
  if (!options.read_only_gate) loaded->SetGate(options.nonce);
  return loaded;
}

bool LoadedProgram::SetConstant(const char* name, const void* value,
                                size_t size) {
  uint32_t offset = 0, found_size = 0;
  const btf* types = bpf_object__btf(object_.get());
  if (types == nullptr || !FindVariable(types, name, offset, found_size) ||
      found_size != size) {
    return false;
  }
  bpf_map* map;
  bpf_object__for_each_map(map, object_.get()) {
    size_t map_size = 0;
    void* bytes = bpf_map__initial_value(map, &map_size);
    if (bytes != nullptr &&
        std::string_view(bpf_map__name(map)) == ".rodata.gate") {
      std::memcpy(static_cast<char*>(bytes) + offset, value, size);
      return true;
    }
  }
  return false;
}

bool LoadedProgram::UseReadOnlyGate() {
  bpf_map* gate = bpf_object__find_map_by_name(object_.get(), "bpfgrant_gate");
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_RDONLY_PROG);
  const UniqueFd twin(bpf_map_create(
      BPF_MAP_TYPE_ARRAY, "twin", bpf_map__key_size(gate),
      bpf_map__value_size(gate), bpf_map__max_entries(gate), &options));
  const bool used = twin.valid() && bpf_map__reuse_fd(gate, twin.get()) == 0;
  EXPECT_TRUE(used) << std::strerror(errno);
  return used;
}

int LoadedProgram::program() const {
  return bpf_program__fd(bpf_object__next_program(object_.get(), nullptr));
}

int LoadedProgram::map(const char* name) const {
  return bpf_object__find_map_fd_by_name(object_.get(), name);
}

void LoadedProgram::LookUp(const char* name, uint32_t key, void* value) const {
  EXPECT_EQ(bpf_map_lookup_elem(map(name), &key, value), 0)
      << name << ": " << std::strerror(errno);
}

void LoadedProgram::Update(const char* name, uint32_t key, const void* value) {
  EXPECT_EQ(bpf_map_update_elem(map(name), &key, value, BPF_ANY), 0)
      << name << ": " << std::strerror(errno);
}

uint32_t LoadedProgram::Run(const std::vector<char>& packet) const {
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(),
              .data_size_in = static_cast<uint32_t>(packet.size()),
              .repeat = 1);
  EXPECT_EQ(bpf_prog_test_run_opts(program(), &options), 0)
      << std::strerror(errno);
  return options.retval;
}

void* LoadedProgram::Map(const char* name, size_t size) const {
  void* memory =
      mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, map(name), 0);
  if (memory != MAP_FAILED) return memory;
  ADD_FAILURE() << name << ": " << std::strerror(errno);
  return nullptr;
}

}  // namespace bpfgrant::test

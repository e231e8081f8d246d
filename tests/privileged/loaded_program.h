// One program of the build's catalog, loaded by the test itself and behind a
// gate of the test's own: what the program does, without the daemon.

#ifndef TESTS_PRIVILEGED_LOADED_PROGRAM_H_
#define TESTS_PRIVILEGED_LOADED_PROGRAM_H_

#include <bpf/libbpf.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bpf-programs/include/bpfgrant/gate.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {

inline constexpr uint32_t kSlot = 4711;
inline constexpr uint64_t kNonce = 0x0123456789abcdef;
inline constexpr uint32_t kPass =
    1;  // bpfgrant_on_revoke, as gate.bpf.h has it
inline constexpr uint32_t kDrop = 2;

struct LoadOptions {
  uint32_t on_revoke = kPass;
  uint64_t nonce = kNonce;
  // Loads against a gate that the verifier lets no program write.
  bool read_only_gate = false;
};

class LoadedProgram {
 public:
  // Loads `name`; with an open gate, unless that is read-only. Null, and a
  // failure of the test with the verifier's words, if it does not load.
  static std::unique_ptr<LoadedProgram> Load(const std::string& name,
                                             const LoadOptions& options = {});

  int program() const;
  int map(const char* name) const;

  // What the program answers to this packet (BPF_PROG_TEST_RUN).
  uint32_t Run(const std::vector<char>& packet) const;

  void SetGate(uint64_t nonce) {
    Write("bpfgrant_gate", kSlot, bpfgrant_gate_entry{nonce, 0});
  }

  template <typename Value>
  Value Read(const char* name, uint32_t key = 0) const {
    Value value{};
    LookUp(name, key, &value);
    return value;
  }
  template <typename Value>
  void Write(const char* name, uint32_t key, const Value& value) {
    Update(name, key, &value);
  }

  // The map's memory, writable; null and a failure if it cannot be mapped.
  void* Map(const char* name, size_t size) const;

 private:
  struct Closer {
    void operator()(bpf_object* object) const { bpf_object__close(object); }
  };

  LoadedProgram() = default;
  bool SetConstant(const char* name, const void* value, size_t size);
  bool UseReadOnlyGate();
  void LookUp(const char* name, uint32_t key, void* value) const;
  void Update(const char* name, uint32_t key, const void* value);

  std::unique_ptr<bpf_object, Closer> object_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_LOADED_PROGRAM_H_

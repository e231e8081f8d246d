// The code of a BPF object as its compiler left it: functions, and what their
// instructions refer to. The file may hold anything.
//
// It must not ask libbpf: what libbpf refuses, or would crash on, is read here
// as far as it goes.

#ifndef DAEMON_LOADER_INSPECTION_CODE_H_
#define DAEMON_LOADER_INSPECTION_CODE_H_

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace bpfgrant::daemon {

// What an instruction refers to.
struct Target {
  enum class Kind {
    kObject,    // a map, or a section of globals: an index in Code::objects
    kFunction,  // of the object: an index in Code::functions
    kKernel,    // of the kernel: an index in Code::kernel
  };
  Kind kind;
  uint32_t index;
};

struct Function {
  std::string name;
  std::string section;
  std::vector<bpf_insn> code;
  std::map<size_t, Target> targets;  // by instruction

  const Target* TargetAt(size_t instruction) const {
    const auto found = targets.find(instruction);
    return found == targets.end() ? nullptr : &found->second;
  }
};

struct Code {
  struct Object {
    std::string name;
    bool section;  // of globals: an address in it is that of the data
  };
  std::vector<Function> functions;
  std::vector<Object> objects;
  std::vector<std::string> kernel;

  // The function and those of the object that it may call, by index.
  std::vector<uint32_t> ReachableFrom(uint32_t function) const;
  // functions.size(): there is none.
  uint32_t FindFunction(std::string_view name) const;
};

// Nothing of a file that is no ELF file.
Code ReadCode(std::string_view object);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_CODE_H_

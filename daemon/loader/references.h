// What the code of one program in an object refers to, by the relocations that
// its compiler left: maps, and functions of the kernel's.
//
// Functions that are no programs can be called by any of them, so what those
// refer to counts for each.

#ifndef DAEMON_LOADER_REFERENCES_H_
#define DAEMON_LOADER_REFERENCES_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace bpfgrant::daemon {

// Functions that are no programs.
inline constexpr std::string_view kFunctionSection = ".text";

// Where a program's code stands: bytes of a section.
struct CodeSpan {
  std::string section;
  uint64_t begin = 0;
  uint64_t end = 0;

  bool Contains(std::string_view where, uint64_t offset) const {
    return where == section && offset >= begin && offset < end;
  }
};

// A function that is not in the object.
struct OuterFunction {
  bool used = false;  // by the program, or by a function it may call
  bool weak = false;  // can be done without (__weak)
  bool asks = false;  // it looks whether there is one (bpf_ksym_exists)
};

struct References {
  std::optional<CodeSpan> code;  // nothing: there is no such program
  std::set<std::string> maps;
  // Sections of programs that it calls as functions.
  std::set<std::string> called;
  std::map<std::string, OuterFunction> functions;  // all, by name
};

// Of the program `function` in the ELF file `object`, which libbpf has opened.
// In doubt too much rather than too little; nothing if it is no ELF file.
References ReadReferences(std::string_view object, std::string_view function);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_REFERENCES_H_

// What the code of one program in an object refers to, by the relocations that
// its compiler left: maps, and functions of the kernel's.
//
// Functions that are no programs can be called by any of them, so what those
// refer to counts for each.

#ifndef DAEMON_LOADER_REFERENCES_H_
#define DAEMON_LOADER_REFERENCES_H_

#include <map>
#include <set>
#include <string>
#include <string_view>

namespace bpfgrant::daemon {

struct References {
  std::set<std::string> maps;
  // Whether the program can do without it (__weak), by name.
  std::map<std::string, bool> functions;
};

// Of the program `function` in the ELF file `object`, which libbpf has opened.
// In doubt too much rather than too little; nothing if it is no ELF file.
References ReadReferences(std::string_view object, std::string_view function);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_REFERENCES_H_

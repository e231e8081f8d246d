// What an object is made of and what it calls, for the admission limits.

#ifndef DAEMON_LOADER_OBJECT_USES_H_
#define DAEMON_LOADER_OBJECT_USES_H_

#include <cstdint>
#include <set>
#include <string>

#include "daemon/loader/admission.h"

struct bpf_object;

namespace bpfgrant::daemon {

// Of what is loaded of the object: its programs, the functions that they may
// call, and the maps of one instance.
struct ObjectUses {
  std::set<std::string> map_types;  // "HASH"
  std::set<std::string> helpers;
  // Functions of the kernel's. One that is called by its number, which
  // compilers do not, is "number 999".
  std::set<std::string> kfuncs;
  Amounts amounts;
};

// Of an object that CheckObject found good, opened from program.loadable().
ObjectUses FindUses(const Program& program, const bpf_object* object);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_OBJECT_USES_H_

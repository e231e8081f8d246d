// The drop-in of a unit that has its program started by `exec`.

#ifndef CLIENT_BPFGRANTCTL_EXEC_DROP_IN_H_
#define CLIENT_BPFGRANTCTL_EXEC_DROP_IN_H_

#include <string>

#include "client/bpfgrantctl/exec_options.h"

namespace bpfgrant::ctl {

// Its text, quoted as systemd.service(5) has it.
std::string DropInFor(const ExecWords& words);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_EXEC_DROP_IN_H_

// The daemon from its command line to its exit.

#ifndef DAEMON_RUN_H_
#define DAEMON_RUN_H_

#include "daemon/mitigations.h"

namespace bpfgrant::daemon {

// Reads options and configuration, binds or adopts the sockets, splits into
// loader and broker before the first thread, and runs both. Returns the exit
// status: 0 after SIGTERM or SIGINT, 1 after a failure, 2 for bad usage.
int Run(int argc, char** argv, Mitigations mitigations);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_RUN_H_

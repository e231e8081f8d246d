// What in a BPF object somebody has to think about before approving it.

#ifndef DAEMON_LOADER_INSPECTION_DANGERS_H_
#define DAEMON_LOADER_INSPECTION_DANGERS_H_

#include "bpfgrant/v1/inspection.pb.h"

namespace bpfgrant::daemon {

// Adds what the programs and maps that are in it show.
void AddDangers(v1::Inspection& inspection);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_DANGERS_H_

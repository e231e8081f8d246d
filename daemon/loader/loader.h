// The loader: the process that keeps the few capabilities that the kernel asks
// for, and does only what names an approved program. Its one peer is the
// broker, over one socket pair, in the messages of loader.proto.
//
// It must not know clients: not their identity, nor a byte that they sent.

#ifndef DAEMON_LOADER_LOADER_H_
#define DAEMON_LOADER_LOADER_H_

#include <string>
#include <vector>

#include "daemon/fd_store.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

struct LoaderOptions {
  // Later ones override by file name.
  std::vector<std::string> catalog_directories;
  std::vector<std::string> policy_directories;
  std::vector<std::string> key_directories;
  // Later ones override field by field.
  std::vector<std::string> admission_files;
  Mitigations mitigations;
};

// Serves the broker behind `socket` (SOCK_SEQPACKET) until it is gone; returns
// the process's exit status. Then every gate is closed, unless a store keeps
// what is behind them for the next loader. `found` is what the last one left
// there.
//
// Looks at the kernel, gives up privileges (DropToLoader) for the whole
// process, reads catalog and policy and says Ready. If the policy is invalid, a
// folder cannot be listed or the kernel refuses what the loader needs, it sends
// a Refusal with id 0 instead and returns 1. A packet that no correct broker
// sends closes every gate and returns 1, too.
//
// To be called in a process of its own, without threads. Blocks.
int RunLoader(UniqueFd socket, const LoaderOptions& options,
              StoredFds found = {});

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_LOADER_H_

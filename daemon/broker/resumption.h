// What an earlier broker of this daemon had granted, taken up by this one:
// sessions with their tokens, grants with their numbers and gates, what has
// ended and still counts. What cannot be taken up is ended, and said to be.
//
// The records are taken at their word for what was granted, since none but the
// broker writes them; who the clients are the kernel says once more.

#ifndef DAEMON_BROKER_RESUMPTION_H_
#define DAEMON_BROKER_RESUMPTION_H_

#include <cstdint>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/daemon/record.pb.h"
#include "daemon/broker/accept.h"
#include "daemon/broker/gates.h"
#include "daemon/broker/granting.h"
#include "daemon/broker/keeping.h"
#include "daemon/broker/ledger.h"
#include "daemon/broker/loader_client.h"
#include "daemon/broker/remains.h"

namespace bpfgrant::broker {

class Resumption {
 public:
  struct Parts {
    LoaderClient& loader;
    Gates& gates;
    Ledger& ledger;
    Remains& remains;
    Keeping& keeping;
    Granting& granting;
    Acceptor& acceptor;
    Audit& audit;
  };

  explicit Resumption(Parts parts) : parts_(parts) {}

  // Once, with the catalog in force and before anybody is served.
  void Run();

  uint32_t sessions() const { return sessions_; }
  uint32_t grants() const { return grants_; }

 private:
  struct Found {
    LedgerFile::Place place = 0;
    uint64_t number = 0;
    bool marked = false;
    daemon::GrantRecord record;
  };

  void ReadRecords();
  void ResumeSession(const daemon::SessionRecord& record,
                     LedgerFile::Place place);
  void ResumeGrant(Found found);
  void ResumeShared(Found found);
  // What it needs to be handed over is there.
  bool TakeInstance(const daemon::GrantRecord& record, Grant& grant);
  // It ended while no broker was there to see it, or ends now.
  void EndGrant(Found found, v1::Reason why);
  void TellLoader(const daemon::GrantRecord& record, bool live);
  void SendToLoader(bool last);

  Parts parts_;
  // By number, and within it shared maps apart.
  absl::btree_map<std::pair<uint64_t, bool>, Found> grants_found_;
  absl::btree_map<uint64_t, std::pair<LedgerFile::Place, daemon::SessionRecord>>
      sessions_found_;
  absl::flat_hash_map<uint64_t, uint64_t> session_numbers_;
  absl::flat_hash_set<uint32_t> shared_ids_;  // of sessions' maps
  std::vector<Gates::Gate> taken_;
  daemon::LoaderRequest for_loader_;
  uint32_t sessions_ = 0;
  uint32_t grants_ = 0;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_RESUMPTION_H_

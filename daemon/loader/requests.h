// What the broker asks for, request by request, and what is kept for it: the
// catalog in force, attachments and loops under way, what was loaded.

#ifndef DAEMON_LOADER_REQUESTS_H_
#define DAEMON_LOADER_REQUESTS_H_

#include <poll.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/fd_store.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/attach.h"
#include "daemon/loader/broker_channel.h"
#include "daemon/loader/catalog.h"
#include "daemon/loader/census.h"
#include "daemon/loader/children.h"
#include "daemon/loader/configurations.h"
#include "daemon/loader/gate_map.h"
#include "daemon/loader/loader.h"
#include "daemon/loader/loops.h"
#include "daemon/loader/machine_programs.h"
#include "daemon/loader/object_register.h"
#include "daemon/loader/run_totals.h"
#include "daemon/loader/statistics.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class Requests {
 public:
  // What all loops share; invalid where the kernel has none.
  struct LoopMaps {
    UniqueFd trace, steps;
  };

  // `found` is what an earlier loader left in `store`, the maps taken out.
  Requests(BrokerChannel& broker, const LoaderOptions& options, GateMap& gates,
           Admission admission, LoopMaps loop_maps, FdStore& store,
           StoredFds found)
      : store_(store),
        found_(std::move(found)),
        broker_(broker),
        options_(options),
        gates_(gates),
        admission_(std::move(admission)),
        loop_maps_(std::move(loop_maps)),
        census_(Census::Create()),
        statistics_(Statistics::Create()),
        attacher_(options.mitigations),
        loops_(options.mitigations, store),
        machine_programs_(options.mitigations, store),
        configurations_(options.mitigations) {}

  // Reads catalog and policy and puts both in force, or changes nothing.
  // Returns the snapshot for the broker.
  absl::StatusOr<UniqueFd> Read();
  // The first promise to the broker. `grace_keeper` is its end
  // (grace_keeper.h).
  absl::Status SendReady(const v1::KernelFacts& kernel, UniqueFd snapshot,
                         UniqueFd grace_keeper);

  // Answers it, at once or later. Not OK: no correct broker sends that.
  absl::Status Handle(BrokerChannel::Request request);

  // What is under way in children (attachments of programs and of loops, and
  // looks at executables): what to wait for, until when, and the answers of
  // those that are over.
  void AddTo(std::vector<pollfd>& polled) const;
  std::optional<Children::Clock::time_point> NextDeadline() const;
  absl::Status AnswerChildren();

  // Reloads go on entry by entry, so that nobody waits for all of one.
  bool has_reload() const { return !reloads_.empty() || replaced_.size() > 0; }
  // Goes on for about `time`, one entry at least.
  absl::Status ContinueReload(Children::Clock::duration time);

 private:
  // Catalog and policy that are being read, and not in force yet.
  struct Reload {
    std::vector<CompiledRule> rules;
    std::vector<v1::LimitInForce> limits;
    CatalogReader catalog;
  };

  absl::Status SendRefusal(uint64_t id, const absl::Status& why);
  absl::StatusOr<std::shared_ptr<const Program>> FindAvailable(
      const std::string& name) const;
  absl::StatusOr<std::shared_ptr<const Program>> FindToLoad(
      const LoadRequest& request) const;
  absl::Status OnLoad(uint64_t id, const LoadRequest& request,
                      std::vector<UniqueFd> session_maps);
  absl::Status OnAttach(uint64_t id, const AttachRequest& request,
                        std::vector<UniqueFd> fds);
  absl::Status OnAttachLoop(uint64_t id, const AttachLoopRequest& request,
                            UniqueFd pidfd);
  absl::Status OnDetachLoop(uint64_t id, const DetachLoopRequest& request);
  absl::Status OnLook(uint64_t id, const LookRequest& request);
  absl::Status OnStatistics(uint64_t id);
  absl::Status OnEnroll(uint64_t id, const EnrollRequest& request,
                        UniqueFd pidfd);
  absl::Status OnDismiss(uint64_t id, const DismissRequest& request);
  absl::Status OnResume(uint64_t id, const ResumeRequest& request);
  // Those that are in `found_`, live or not.
  void TakeUpFound();
  // The same, and ends those that are not in `resumed_`.
  void TakeUpResumed();
  absl::Status OnExecutable(uint64_t id, const ExecutableRequest& request,
                            UniqueFd pidfd);
  absl::StatusOr<Reload> BeginReload();
  absl::StatusOr<UniqueFd> FinishReload(Reload reload);
  absl::Status AnswerReload(absl::StatusOr<UniqueFd> snapshot);
  absl::Status LoadMaps(uint64_t id, const LoadRequest& request,
                        const Program& program);
  absl::Status AnswerExecutables();
  absl::Status Answer(uint64_t id, const absl::Status& status,
                      LoaderReply reply);

  FdStore& store_;
  StoredFds found_;  // until the broker has said what of it goes on
  BrokerChannel& broker_;
  const LoaderOptions& options_;
  GateMap& gates_;
  Admission admission_;
  const LoopMaps loop_maps_;
  const absl::StatusOr<Census> census_;
  const absl::StatusOr<Statistics> statistics_;
  ObjectRegister register_;
  RunTotals run_totals_;
  Attacher attacher_;
  Children executables_;
  Loops loops_;
  MachinePrograms machine_programs_;
  Configurations configurations_;
  Catalog catalog_;
  Catalog replaced_;  // the one before, which is forgotten bit by bit
  // Gates that go on after a restart, until all are known.
  std::set<ObjectRegister::Gate> resumed_;
  std::deque<uint64_t> reloads_;  // asked for; the first is under way
  std::optional<Reload> reload_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_REQUESTS_H_

#include "daemon/loader/attach.h"

#include <cstring>
#include <string>
#include <utility>

#include "daemon/loader/target.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

// What a child says of its attempt.
struct Outcome {
  v1::Target target;
  int error = 0;  // errno; 0 is success
};

absl::Status StatusOf(const Children::Result& result) {
  Outcome outcome;
  switch (result.end) {
    case Children::End::kTooLate:
      return Refuse(v1::REASON_ATTACH_FAILED, "attaching timed out");
    case Children::End::kNotBegun:
      return Refuse(v1::REASON_ATTACH_FAILED,
                    "there can be no process that attaches");
    default:
      if (result.said.size() != sizeof(outcome)) {
        return Refuse(v1::REASON_ATTACH_FAILED,
                      "the process that attaches ended without a word");
      }
      std::memcpy(&outcome, result.said.data(), sizeof(outcome));
      return StatusOfPutOn(outcome.error, outcome.target);
  }
}

}  // namespace

void Attacher::Start(uint64_t id, uint32_t owner, UniqueFd program, UniqueFd fd,
                     v1::Target target) {
  Children::Job job;
  job.id = id;
  job.owner = owner;
  job.deadline = Children::Clock::now() + deadline_;
  job.fds.push_back(std::move(fd));
  job.fds.push_back(std::move(program));
  job.work = [target, lock = mitigations_.lock_filter](
                 const std::vector<UniqueFd>& fds) {
    const Outcome outcome{target,
                          PutOn(fds[0].get(), fds[1].get(), target, lock)};
    return std::string(reinterpret_cast<const char*>(&outcome),
                       sizeof(outcome));
  };
  children_.Start(std::move(job));
}

std::vector<Attacher::Result> Attacher::Collect() {
  std::vector<Result> results;
  for (const Children::Result& result : children_.Collect()) {
    results.push_back({result.id, StatusOf(result)});
  }
  return results;
}

}  // namespace bpfgrant::daemon

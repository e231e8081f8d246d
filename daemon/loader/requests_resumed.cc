// Requests, as far as they take up what an earlier loader left in the service
// manager's store.

#include <cstdint>
#include <utility>
#include <vector>

#include "daemon/loader/requests.h"
#include "daemon/stored_names.h"

namespace bpfgrant::daemon {

void Requests::TakeUpFound() {
  machine_programs_.Restore(found_);
  std::vector<std::pair<std::vector<uint64_t>, UniqueFd>> links;
  for (auto& [name, fd] : found_) {
    const auto numbers = NumbersOf(name, kStoredLink);
    if (numbers.has_value() && numbers->size() == 2) {
      links.emplace_back(*numbers, std::move(fd));
    }
  }
  for (auto& [numbers, link] : links) {
    found_.erase(StoredName(kStoredLink, numbers));
    UniqueFd process;
    const auto found = found_.find(StoredName(kStoredProcess, numbers));
    if (found != found_.end()) {
      process = std::move(found_.extract(found).mapped());
    }
    loops_.Restore({static_cast<uint32_t>(numbers[0]), numbers[1]},
                   std::move(link), std::move(process));
  }
}

void Requests::TakeUpResumed() {
  TakeUpFound();
  for (const auto& gate : loops_.Gates()) {
    if (!resumed_.contains(gate)) loops_.Detach(gate);
  }
  for (const auto& gate : machine_programs_.Gates()) {
    if (!resumed_.contains(gate)) machine_programs_.Dismiss(gate);
  }
  resumed_.clear();
  // What is left was a loop's or a grant's that is gone.
  for (const auto& [name, fd] : found_) store_.Remove(name);
  found_.clear();
}

absl::Status Requests::OnResume(uint64_t id, const ResumeRequest& request) {
  for (const ResumeRequest::Instance& instance : request.instance()) {
    ObjectIds objects;
    for (const uint32_t number : instance.program_id()) {
      objects.push_back({true, number, ""});
    }
    for (const uint32_t number : instance.map_id()) {
      objects.push_back({false, number, ""});
    }
    const ObjectRegister::Gate gate{instance.gate_slot(),
                                    instance.gate_nonce()};
    if (instance.live()) resumed_.insert(gate);
    if (!census_.ok()) continue;
    if (instance.session_maps()) {
      register_.EnterSessionMaps(gate, instance.program(), std::move(objects));
    } else {
      register_.Enter(gate, instance.program(), std::move(objects), {});
    }
  }
  if (request.last()) TakeUpResumed();
  LoaderReply reply;
  reply.mutable_resume();
  return Answer(id, absl::OkStatus(), std::move(reply));
}

}  // namespace bpfgrant::daemon

#include "daemon/loader/object_register.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant::daemon {
namespace {

bool Exists(const ObjectId& object, const Existing& existing) {
  return object.program ? existing.HasProgram(object.id)
                        : existing.HasMap(object.id);
}

std::string Describe(const ObjectId& object) {
  // What was loaded before a restart is known by number.
  return absl::StrCat(object.program ? "program " : "map ", object.id,
                      object.name.empty() ? "" : " (", object.name,
                      object.name.empty() ? "" : ")");
}

}  // namespace

void ObjectRegister::Enter(Gate gate, const std::string& program, ObjectIds own,
                           ObjectIds session_maps) {
  own_[gate] = {program, std::move(own)};
  if (!session_maps.empty()) {
    EnterSessionMaps(gate, program, std::move(session_maps));
  }
}

void ObjectRegister::EnterSessionMaps(Gate gate, const std::string& program,
                                      ObjectIds maps) {
  session_maps_[gate] = {program, std::move(maps)};
}

void ObjectRegister::ForEach(
    absl::FunctionRef<void(Gate, const std::string&, const ObjectIds&)> visit)
    const {
  for (const auto& [gate, objects] : own_) {
    visit(gate, objects.program, objects.ids);
  }
}

LookReply ObjectRegister::Look(const LookRequest& request,
                               const Existing& existing) {
  LookReply reply;
  for (int i = 0; i < request.instance_size(); ++i) {
    const LookRequest::Instance& instance = request.instance(i);
    auto& objects = instance.session_maps() ? session_maps_ : own_;
    const auto entry =
        objects.find({instance.gate_slot(), instance.gate_nonce()});
    if (entry == objects.end()) continue;
    const ObjectIds& ids = entry->second.ids;
    const auto held = std::find_if(
        ids.begin(), ids.end(),
        [&](const ObjectId& object) { return Exists(object, existing); });
    if (held == ids.end()) {
      objects.erase(entry);
      continue;
    }
    LookReply::Held& left = *reply.add_held();
    left.set_index(static_cast<uint32_t>(i));
    left.set_object(Describe(*held));
  }
  return reply;
}

}  // namespace bpfgrant::daemon

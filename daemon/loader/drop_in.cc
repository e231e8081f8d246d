#include "daemon/loader/drop_in.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/manifest.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "proto/refusal/refusal.h"
#include "proto/text/text_file.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Map = v1::Manifest::Map;

// Step by step; each returns what is wrong.
class Application {
 public:
  Application(const DropIn& drop_in, v1::Manifest& manifest)
      : drop_in_(drop_in), manifest_(manifest), text_(drop_in.file) {}

  absl::Status Run();

 private:
  absl::Status CheckFields() const;
  // `inner`: of field `outer`, element `index`. What is not in `known` is
  // complained of.
  absl::Status CheckFields(const Message& message,
                           const std::set<absl::string_view>& known,
                           std::string_view outer, int index) const;
  absl::Status CheckWhatItIsFor() const;
  absl::Status Describe();
  absl::Status AddTags();
  absl::Status NarrowDelivery();
  absl::Status NarrowLoop();
  absl::Status NarrowRights();
  absl::Status NarrowRights(const Map& wanted, int i);
  absl::Status Refused(Place place, v1::Reason reason,
                       std::string_view what) const;

  const DropIn& drop_in_;
  v1::Manifest& manifest_;
  TextFile text_;
  v1::Manifest parts_;
};

absl::Status Application::Run() {
  if (auto status = text_.Parse(drop_in_.bytes, parts_); !status.ok()) {
    return status;
  }
  if (auto status = CheckFields(); !status.ok()) return status;
  for (const auto step :
       {&Application::Describe, &Application::AddTags,
        &Application::NarrowDelivery, &Application::NarrowLoop}) {
    if (auto status = (this->*step)(); !status.ok()) return status;
  }
  if (auto status = CheckWhatItIsFor(); !status.ok()) return status;
  return NarrowRights();
}

absl::Status Application::CheckFields() const {
  if (auto status = CheckFields(parts_,
                                {"interface", "sha256", "description", "tag",
                                 "pool", "program", "loop", "map"},
                                "", -1);
      !status.ok()) {
    return status;
  }
  if (auto status = CheckFields(parts_.program(), {"delivery"}, "program", -1);
      !status.ok()) {
    return status;
  }
  for (int i = 0; i < parts_.map_size(); ++i) {
    if (auto status = CheckFields(parts_.map(i), {"name", "rights"}, "map", i);
        !status.ok()) {
      return status;
    }
  }
  return CheckFields(parts_.loop(), {"step_budget", "trace"}, "loop", -1);
}

absl::Status Application::CheckFields(const Message& message,
                                      const std::set<absl::string_view>& known,
                                      std::string_view outer, int index) const {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const std::string& name = field->name();
    if (known.contains(name)) continue;
    return text_.Complain(
        outer.empty() ? text_.Where(name) : text_.Where(outer, index, name),
        absl::StrCat(
            "a drop-in says nothing of ", std::string(outer),
            outer.empty() ? "" : ".", name,
            ": write a manifest of your own, which replaces this one"));
  }
  return absl::OkStatus();
}

absl::Status Application::CheckWhatItIsFor() const {
  if (!parts_.interface().empty() &&
      parts_.interface() != manifest_.interface()) {
    return Refused(text_.Where("interface"), v1::REASON_DIGEST_MISMATCH,
                   absl::StrCat("it is for another manifest: this one's "
                                "interface is ",
                                manifest_.interface()));
  }
  const std::string& digest = parts_.sha256();
  const bool known =
      digest.empty() || digest == manifest_.sha256() ||
      std::ranges::any_of(manifest_.variant(), [&](const auto& variant) {
        return variant.sha256() == digest;
      });
  if (known) return absl::OkStatus();
  return Refused(text_.Where("sha256"), v1::REASON_DIGEST_MISMATCH,
                 "it is for another manifest, which approves an object of this "
                 "digest");
}

absl::Status Application::Describe() {
  if (!parts_.description().empty()) {
    if (parts_.description().size() > kMaxDescriptionBytes) {
      return text_.Complain(text_.Where("description"),
                            absl::StrCat("description has at most ",
                                         kMaxDescriptionBytes, " bytes"));
    }
    manifest_.set_description(parts_.description());
  }
  if (!parts_.pool().has_ready()) return absl::OkStatus();
  if (parts_.pool().ready() > kMaxPoolReady) {
    return text_.Complain(text_.Where("pool", -1, "ready"),
                          absl::StrCat("ready is at most ", kMaxPoolReady));
  }
  manifest_.mutable_pool()->set_ready(parts_.pool().ready());
  return absl::OkStatus();
}

absl::Status Application::AddTags() {
  for (int i = 0; i < parts_.tag_size(); ++i) {
    const std::string& tag = parts_.tag(i);
    if (!IsName(tag)) {
      return text_.Complain(text_.Where("tag", i),
                            "a tag must match [a-z][a-z0-9_]{0,62}");
    }
    if (std::ranges::find(manifest_.tag(), tag) != manifest_.tag().end()) {
      continue;
    }
    if (!drop_in_.objection.empty()) {
      return Refused(text_.Where("tag", i), v1::REASON_SIGNATURE,
                     absl::StrCat("a tag can let more rules of the policy "
                                  "match; ",
                                  drop_in_.objection));
    }
    manifest_.add_tag(tag);
  }
  return absl::OkStatus();
}

absl::Status Application::NarrowDelivery() {
  const auto& wanted = parts_.program().delivery();
  if (wanted.empty()) return absl::OkStatus();
  auto& allowed = *manifest_.mutable_program()->mutable_delivery();
  for (int i = 0; i < wanted.size(); ++i) {
    if (std::ranges::find(allowed, wanted[i]) == allowed.end()) {
      return text_.Complain(text_.Where("program", -1, "delivery", i),
                            "the manifest does not allow this delivery, and a "
                            "drop-in cannot");
    }
  }
  allowed.erase(std::remove_if(allowed.begin(), allowed.end(),
                               [&](int delivery) {
                                 return std::ranges::find(wanted, delivery) ==
                                        wanted.end();
                               }),
                allowed.end());
  return absl::OkStatus();
}

absl::Status Application::NarrowLoop() {
  if (!parts_.has_loop()) return absl::OkStatus();
  if (!manifest_.has_loop()) {
    return text_.Complain(text_.Where("loop"), "the program is no loop");
  }
  v1::Manifest::Loop& loop = *manifest_.mutable_loop();
  if (parts_.loop().trace() && !loop.trace()) {
    return text_.Complain(text_.Where("loop", -1, "trace"),
                          "the manifest lets nobody watch its steps, and a "
                          "drop-in cannot");
  }
  // Absent and false are the same to the message, and not to the text.
  if (text_.Where("loop", -1, "trace") != text_.Where("loop")) {
    loop.set_trace(parts_.loop().trace());
  }
  if (!parts_.loop().has_step_budget()) return absl::OkStatus();
  const uint32_t most =
      loop.has_step_budget() ? loop.step_budget() : kDefaultStepBudget;
  if (parts_.loop().step_budget() == 0 || parts_.loop().step_budget() > most) {
    return text_.Complain(
        text_.Where("loop", -1, "step_budget"),
        absl::StrCat("step_budget is at least 1 and at most the manifest's ",
                     most));
  }
  loop.set_step_budget(parts_.loop().step_budget());
  return absl::OkStatus();
}

absl::Status Application::NarrowRights() {
  for (int i = 0; i < parts_.map_size(); ++i) {
    if (auto status = NarrowRights(parts_.map(i), i); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Application::NarrowRights(const Map& wanted, int i) {
  auto& maps = *manifest_.mutable_map();
  const auto map = std::ranges::find(maps, wanted.name(), &Map::name);
  if (map == maps.end() || map->handle().empty()) {
    return text_.Complain(text_.Where("map", i, "name"),
                          absl::StrCat("the manifest has no handle of a map '",
                                       wanted.name(), "'"));
  }
  if (wanted.rights() == map->rights()) return absl::OkStatus();
  // The kernel maps no narrowed fd of a ring buffer.
  const bool narrows = wanted.rights() != v1::RIGHTS_UNSPECIFIED &&
                       map->rights() == v1::RIGHTS_READ_WRITE &&
                       map->kind() != v1::HANDLE_KIND_RING_BUFFER &&
                       map->kind() != v1::HANDLE_KIND_USER_RING_BUFFER;
  if (!narrows) {
    return text_.Complain(text_.Where("map", i, "rights"),
                          "these are not fewer rights than the manifest gives, "
                          "or not enough for its kind");
  }
  map->set_rights(wanted.rights());
  return absl::OkStatus();
}

absl::Status Application::Refused(Place place, v1::Reason reason,
                                  std::string_view what) const {
  return Refuse(reason, absl::StrCat(text_.name(), ":", place.line, ":",
                                     place.column, ": ", std::string(what)));
}

}  // namespace

absl::Status ApplyDropIn(const DropIn& drop_in, v1::Manifest& manifest) {
  return Application(drop_in, manifest).Run();
}

}  // namespace bpfgrant::daemon

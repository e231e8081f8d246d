#include "daemon/loader/inspection/map_draft.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/object.h"
#include "daemon/loader/tracing_object.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

v1::HandleKind KindOf(std::string_view type) {
  constexpr std::pair<std::string_view, v1::HandleKind> kKinds[] = {
      {"ringbuf", v1::HANDLE_KIND_RING_BUFFER},
      {"user_ringbuf", v1::HANDLE_KIND_USER_RING_BUFFER},
      {"array", v1::HANDLE_KIND_ARRAY},
      {"percpu_array", v1::HANDLE_KIND_PERCPU_ARRAY},
      {"hash", v1::HANDLE_KIND_HASH},
      {"lpm_trie", v1::HANDLE_KIND_LPM_TRIE},
      {"reuseport_sockarray", v1::HANDLE_KIND_SOCKET_ARRAY},
  };
  for (const auto& [name, kind] : kKinds) {
    if (name == type) return kind;
  }
  return v1::HANDLE_KIND_UNSPECIFIED;
}

// Not named in a manifest: the daemon's own, and sections of globals.
bool IsOwn(const v1::InspectedMap& map) {
  return map.section() || map.name() == kGateMap ||
         map.name() == kEnrolledMap || IsEntryMap(map.name());
}

absl::Status Unnameable(const v1::InspectedMap& map, std::string_view why) {
  return Refuse(v1::REASON_OBJECT_MISMATCH,
                absl::StrCat("map '", map.name(), "' ", std::string(why)));
}

class MapDrafter {
 public:
  MapDrafter(const v1::InspectedMap& map, const std::string& program,
             bool traces)
      : map_(&map),
        // What a client would get of it.
        offered_(map.has_inner() ? &map.inner() : &map),
        swappable_(map.has_inner() && !traces),
        // A tracing program's functions are one program.
        reads_(traces ? !map.reader().empty()
                      : std::ranges::count(map.reader(), program) != 0),
        writes_(traces ? !map.writer().empty()
                       : std::ranges::count(map.writer(), program) != 0) {}

  absl::Status Check() const {
    if (!IsIdentifier(map_->name())) {
      return Unnameable(*map_, "has a name that no manifest can have");
    }
    if (KindOf(offered_->type()) == v1::HANDLE_KIND_UNSPECIFIED) {
      return Unnameable(*map_, absl::StrCat("is of type ", offered_->type(),
                                            ", which no manifest can name"));
    }
    if (map_->pinned()) {
      return Unnameable(*map_, "asks to be pinned, and so would be shared");
    }
    return absl::OkStatus();
  }

  bool Is(const v1::Manifest::Map& known) const {
    return known.name() == map_->name() &&
           known.kind() == KindOf(offered_->type()) &&
           known.swappable() == swappable_;
  }

  void Draft(v1::Manifest::Map& draft, Remarks& remarks) const {
    draft.set_name(map_->name());
    draft.set_kind(KindOf(offered_->type()));
    if (swappable_) draft.set_swappable(true);
    const v1::Rights rights = NarrowestRights(remarks);
    if (rights == v1::RIGHTS_UNSPECIFIED) return;
    if (IsName(map_->name())) {
      draft.set_handle(map_->name());
    } else {
      remarks.inside.push_back(absl::StrCat("handle: ", kDecide));
    }
    draft.set_rights(rights);
    if (!offered_->value_type().empty()) {
      draft.add_structure(offered_->value_type());
    } else if (IsBuffer()) {
      remarks.inside.push_back(
          "# The structures that are sent through it: structure: \"...\"");
    }
  }

 private:
  bool IsBuffer() const {
    return offered_->type() == "ringbuf" || offered_->type() == "user_ringbuf";
  }

  // None: it is the program's own, unless a human says more.
  v1::Rights NarrowestRights(Remarks& remarks) const {
    const auto say = [&](std::string_view what) {
      remarks.before.emplace_back(what);
    };
    if (IsBuffer()) {
      say(offered_->type() == "ringbuf"
              ? "The program writes events. Who reads maps it, and moves a "
                "position."
              : "The program reads messages. Who writes maps it.");
      return v1::RIGHTS_READ_WRITE;
    }
    if (reads_ && !writes_) {
      say("The program only reads it: a client gives it what to go by.");
      return v1::RIGHTS_WRITE;
    }
    if (writes_ && !reads_) {
      say("The program only writes it: a client reads.");
      return v1::RIGHTS_READ;
    }
    if (swappable_) {
      say("The program reads and writes it; a client has its two by turns.");
      return v1::RIGHTS_READ;
    }
    say(reads_ ? "The program reads and writes it, so it may be its own. For "
                 "clients that"
               : "The program does not use it. For clients that");
    say(absl::StrCat("read: handle: \"", map_->name(),
                     "\" rights: RIGHTS_READ; that write, too: "
                     "RIGHTS_READ_WRITE."));
    return v1::RIGHTS_UNSPECIFIED;
  }

  const v1::InspectedMap* map_;
  const v1::InspectedMap* offered_;
  bool swappable_, reads_, writes_;
};

}  // namespace

absl::Status DraftMaps(const v1::Inspection& inspection,
                       const std::string& program, bool traces,
                       v1::Manifest& manifest, AllRemarks& remarks) {
  std::vector<MapDrafter> drafters;
  for (const v1::InspectedMap& map : inspection.map()) {
    if (IsOwn(map)) continue;
    drafters.emplace_back(map, program, traces);
    if (auto status = drafters.back().Check(); !status.ok()) return status;
  }
  // The known ones in their order, which is that of a grant's handles.
  const v1::Manifest known = manifest;
  manifest.clear_map();
  for (const v1::Manifest::Map& map : known.map()) {
    if (std::erase_if(drafters, [&](const MapDrafter& drafter) {
          return drafter.Is(map);
        }) != 0) {
      *manifest.add_map() = map;
    }
  }
  for (const MapDrafter& drafter : drafters) {
    const int index = manifest.map_size();
    drafter.Draft(*manifest.add_map(), remarks[{"map", index}]);
  }
  return absl::OkStatus();
}

}  // namespace bpfgrant::daemon

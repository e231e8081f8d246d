#include "daemon/loader/machine_program.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "bpf-programs/include/bpfgrant/enrolled.h"
#include "daemon/loader/tracing_object.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

absl::Status Failed(absl::string_view what, int error) {
  return Refuse(MayPass(error) ? v1::REASON_BUSY : v1::REASON_LOAD_FAILED,
                absl::StrCat(what, ": ", std::strerror(error)));
}

struct Turn {
  const std::function<int(size_t)>* change;
  size_t index;
  int error;
  pthread_t thread;
  bool started;
};

void* Take(void* argument) {
  auto* turn = static_cast<Turn*>(argument);
  turn->error = (*turn->change)(turn->index) < 0 ? errno : 0;
  return nullptr;
}

// Calls `change`, which may fail with an errno, for each number below `count`,
// each in a thread of its own: a change of an array of maps waits for a grace
// period, and so they wait for the same one. One of the errors; 0: there was
// none.
int ForEachAtOnce(size_t count, const std::function<int(size_t)>& change) {
  std::vector<Turn> turns(count);
  for (size_t i = 0; i < count; ++i) {
    turns[i] = {&change, i, 0, {}, false};
    turns[i].started =
        pthread_create(&turns[i].thread, nullptr, Take, &turns[i]) == 0;
    if (!turns[i].started) Take(&turns[i]);
  }
  int error = 0;
  for (const Turn& turn : turns) {
    if (turn.started) pthread_join(turn.thread, nullptr);
    if (turn.error != 0) error = turn.error;
  }
  return error;
}

// Newer kernels allocate a task's storage without waiting for any lock
// (kmalloc_nolock, mm/slub.c), and then ENOMEM may mean that another processor
// had one at that moment.
constexpr int kStoreTries = 20;
constexpr useconds_t kStorePauseUs = 500;

// 0 or an errno.
int Store(int map, int pidfd, const bpfgrant_enrolled& value) {
  for (int tries = 1;; ++tries) {
    if (bpf_map_update_elem(map, &pidfd, &value, BPF_NOEXIST) == 0) return 0;
    if (errno != ENOMEM || tries == kStoreTries) return errno;
    usleep(kStorePauseUs);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MachineProgram>> MachineProgram::Load(
    const Program& program, const DaemonMaps& maps,
    const Mitigations& mitigations) {
  const v1::Manifest& manifest = program.manifest->message();
  auto object = OpenObject(program.loadable(), manifest.name());
  if (!object.ok()) return object.status();
  std::unique_ptr<MachineProgram> machine(
      new MachineProgram(program.name(), *std::move(object)));
  bpf_object* loaded = machine->object_.get();
  // libbpf knows until the load only what they are like.
  machine->FindGrantMaps(manifest);
  const std::string what = absl::StrCat("loading '", program.name(), "'");
  bpf_program__set_autoload(
      bpf_object__find_program_by_name(loaded, kExecutedProgram),
      mitigations.exec_dismisses);
  const LibbpfLog log;
  if (bpf_map__reuse_fd(GateOf(loaded), maps.gate) < 0 ||
      bpf_object__load(loaded) < 0) {
    const int error = errno;
    return Failed(absl::StrCat(what, ": ", log.LastLine()), error);
  }
  machine->enrolled_ = bpf_map__fd(MapOf(loaded, kEnrolledMap));
  for (GrantMap& map : machine->grant_maps_) {
    map.array = bpf_map__fd(MapOf(loaded, map.name));
  }
  return machine;
}

MachineProgram::~MachineProgram() { Detach(); }

absl::StatusOr<std::vector<uint32_t>> MachineProgram::ProgramIds() const {
  std::vector<uint32_t> ids;
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, object_.get()) {
    const int fd = bpf_program__fd(program);
    if (fd < 0) continue;  // not loaded: kExecutedProgram, with it off
    bpf_prog_info info{};
    uint32_t size = sizeof(info);
    if (bpf_prog_get_info_by_fd(fd, &info, &size) < 0) {
      return absl::InternalError(std::strerror(errno));
    }
    ids.push_back(info.id);
  }
  return ids;
}

void MachineProgram::FindGrantMaps(const v1::Manifest& manifest) {
  for (const v1::Manifest::Map& declared : manifest.map()) {
    grant_maps_.push_back({declared.name(), -1,
                           MapShape(GrantMapOf(object_.get(), declared.name())),
                           !declared.handle().empty(), declared.rights()});
  }
}

absl::StatusOr<std::vector<UniqueFd>> MachineProgram::AddMaps(
    uint32_t slot, const Mitigations& mitigations) {
  std::vector<UniqueFd> made;
  for (const GrantMap& map : grant_maps_) {
    std::optional<v1::Rights> rights;
    if (map.offered && mitigations.narrowed_handles) rights = map.rights;
    auto fd = map.shape.Make(object_.get(), map.name, rights);
    if (!fd.ok()) return fd.status();
    made.push_back(*std::move(fd));
  }
  const int error = ForEachAtOnce(made.size(), [&](size_t i) {
    const int fd = made[i].get();
    return bpf_map_update_elem(grant_maps_[i].array, &slot, &fd, BPF_ANY);
  });
  if (error != 0) {
    RemoveMaps(slot);
    return Failed("adding a grant's maps", error);
  }
  std::vector<UniqueFd> handles;
  for (size_t i = 0; i < made.size(); ++i) {
    if (grant_maps_[i].offered) handles.push_back(std::move(made[i]));
  }
  return handles;
}

void MachineProgram::RemoveMaps(uint32_t slot) {
  ForEachAtOnce(grant_maps_.size(), [&](size_t i) {
    return bpf_map_delete_elem(grant_maps_[i].array, &slot);
  });
}

absl::Status MachineProgram::Attach() {
  bpf_program* program;
  bpf_object__for_each_program(program, object_.get()) {
    if (!bpf_program__autoload(program)) continue;
    bpf_link* link = bpf_program__attach(program);
    if (link == nullptr) {
      const int error = errno;
      Detach();
      return Failed(absl::StrCat("attaching ", bpf_program__name(program)),
                    error);
    }
    links_.push_back(link);
  }
  return absl::OkStatus();
}

void MachineProgram::Detach() {
  for (bpf_link* link : links_) bpf_link__destroy(link);
  links_.clear();
}

absl::Status MachineProgram::Enroll(int pidfd, uint32_t slot, uint64_t nonce) {
  const LibbpfLog log;
  if (links_.empty()) {
    if (auto status = Attach(); !status.ok()) return status;
  }
  if (const int error = Store(enrolled_, pidfd, {nonce, slot, 0}); error != 0) {
    if (processes_ == 0) Detach();
    if (error == EEXIST) {
      return Refuse(v1::REASON_PROCESS_ENROLLED,
                    "the program serves this process already, for another "
                    "grant");
    }
    return Failed("enrolling the process", error);
  }
  ++processes_;
  return absl::OkStatus();
}

void MachineProgram::Dismiss(int pidfd) {
  bpf_map_delete_elem(enrolled_, &pidfd);
  if (--processes_ == 0) Detach();
}

}  // namespace bpfgrant::daemon

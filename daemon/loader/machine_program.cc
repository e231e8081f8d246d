#include "daemon/loader/machine_program.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <pthread.h>
#include <sys/random.h>
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
#include "daemon/stored_names.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

absl::Status Failed(absl::string_view what, int error) {
  return Refuse(MayPass(error) ? v1::REASON_BUSY : v1::REASON_LOAD_FAILED,
                absl::StrCat(what, ": ", std::strerror(error)));
}

uint64_t FreshTag() {
  uint64_t tag = 0;
  while (tag == 0) {
    if (getrandom(&tag, sizeof(tag), 0) != sizeof(tag)) tag = 0;
  }
  return tag;
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
int StoreEntry(int map, int pidfd, const bpfgrant_enrolled& value) {
  for (int tries = 1;; ++tries) {
    if (bpf_map_update_elem(map, &pidfd, &value, BPF_NOEXIST) == 0) return 0;
    if (errno != ENOMEM || tries == kStoreTries) return errno;
    usleep(kStorePauseUs);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<MachineProgram>> MachineProgram::Load(
    const Program& program, const DaemonMaps& maps,
    const Mitigations& mitigations, FdStore& store) {
  const v1::Manifest& manifest = program.manifest->message();
  auto object = OpenObject(program.loadable(), manifest.name());
  if (!object.ok()) return object.status();
  std::unique_ptr<MachineProgram> machine(new MachineProgram(
      program.name(), *std::move(object), store, FreshTag()));
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
  machine->Store(kEnrolled, 0, machine->enrolled_);
  for (size_t i = 0; i < machine->grant_maps_.size(); ++i) {
    machine->Store(kArray, i, machine->grant_maps_[i].array);
  }
  return machine;
}

std::unique_ptr<MachineProgram> MachineProgram::Restore(uint64_t tag,
                                                        StoredFds& found,
                                                        size_t processes,
                                                        FdStore& store) {
  std::unique_ptr<MachineProgram> machine(
      new MachineProgram("", BpfObject(), store, tag));
  const auto take = [&](Part part, size_t number) {
    const auto one = found.find(machine->StoredAs(part, number));
    if (one == found.end()) return UniqueFd();
    return std::move(found.extract(one).mapped());
  };
  UniqueFd enrolled = take(kEnrolled, 0);
  if (!enrolled.valid()) return nullptr;
  machine->enrolled_ = enrolled.get();
  machine->restored_maps_.push_back(std::move(enrolled));
  for (UniqueFd array;
       (array = take(kArray, machine->grant_maps_.size())).valid();) {
    machine->grant_maps_.push_back({"", array.get(), std::nullopt, false, {}});
    machine->restored_maps_.push_back(std::move(array));
  }
  for (UniqueFd link;
       (link = take(kLink, machine->restored_links_.size())).valid();) {
    machine->restored_links_.push_back(std::move(link));
  }
  machine->processes_ = processes;
  return machine;
}

MachineProgram::~MachineProgram() {
  Detach();
  store_.Remove(StoredAs(kEnrolled, 0));
  for (size_t i = 0; i < grant_maps_.size(); ++i) {
    store_.Remove(StoredAs(kArray, i));
  }
}

std::string MachineProgram::StoredAs(Part part, size_t number) const {
  return StoredName(kStoredMachine, {tag_, part, number});
}

void MachineProgram::Store(Part part, size_t number, int fd) {
  store_.Put(StoredAs(part, number), absl::MakeSpan(&fd, 1));
}

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
    auto fd = map.shape->Make(object_.get(), map.name, rights);
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
    Store(kLink, links_.size(), bpf_link__fd(link));
    links_.push_back(link);
  }
  return absl::OkStatus();
}

void MachineProgram::Detach() {
  for (size_t i = 0; i < links_.size() + restored_links_.size(); ++i) {
    store_.Remove(StoredAs(kLink, i));
  }
  // The kernel detaches these with their last fd alone: they stay until the
  // service manager has heard of it.
  for (bpf_link* link : links_) bpf_link__destroy(link);
  links_.clear();
  restored_links_.clear();
}

absl::Status MachineProgram::Enroll(int pidfd, uint32_t slot, uint64_t nonce) {
  const LibbpfLog log;
  if (links_.empty()) {
    if (auto status = Attach(); !status.ok()) return status;
  }
  if (const int error = StoreEntry(enrolled_, pidfd, {nonce, slot, 0});
      error != 0) {
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

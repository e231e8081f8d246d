#include "daemon/loader/trial.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/manifest.h"
#include "daemon/loader/object.h"
#include "daemon/loader/swap.h"
#include "daemon/loader/tracing_manifest.h"
#include "daemon/loader/tracing_object.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

// The kernel's own, which user space has no name for.
constexpr int kNotSupported = 524;
constexpr size_t kLogBufferBytes = 1024 * 1024;

absl::StatusOr<bool> UsesMap(int program, unsigned int map) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  if (bpf_prog_get_info_by_fd(program, &info, &size) < 0) {
    return absl::InternalError(
        absl::StrCat("asking about a program: ", std::strerror(errno)));
  }
  std::vector<uint32_t> ids(info.nr_map_ids);
  info = {};
  info.nr_map_ids = static_cast<uint32_t>(ids.size());
  info.map_ids = reinterpret_cast<uintptr_t>(ids.data());
  size = sizeof(info);
  if (bpf_prog_get_info_by_fd(program, &info, &size) < 0) {
    return absl::InternalError(
        absl::StrCat("asking about a program: ", std::strerror(errno)));
  }
  return std::find(ids.begin(), ids.end(), map) != ids.end();
}

// Whether each program of the object looks at the map, but for the one that
// tracing programs have of the daemon's.
absl::StatusOr<bool> AllUseMap(const bpf_object* object, unsigned int map) {
  bpf_program* program;
  bpf_object__for_each_program(program, object) {
    if (!bpf_program__autoload(program) ||
        std::string_view(bpf_program__name(program)) == kExecutedProgram) {
      continue;
    }
    const auto uses = UsesMap(bpf_program__fd(program), map);
    if (!uses.ok() || !*uses) return uses;
  }
  return true;
}

// Of a tracing program, loaded: whether each function looks who is enrolled.
absl::Status CheckAsksWhom(const bpf_object* object) {
  bpf_map_info info{};
  uint32_t size = sizeof(info);
  if (bpf_map_get_info_by_fd(bpf_map__fd(MapOf(object, kEnrolledMap)), &info,
                             &size) < 0) {
    return absl::InternalError(
        absl::StrCat("asking about a map: ", std::strerror(errno)));
  }
  const auto asks = AllUseMap(object, info.id);
  if (!asks.ok()) return asks.status();
  if (*asks) return absl::OkStatus();
  return Refuse(v1::REASON_GATE_MISSING,
                "a function never looks which process it runs for");
}

// By trying: its gate is closed, so it answers at once.
bool IsRunnable(int program) {
  const std::array<unsigned char, 64> packet{};
  LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = packet.data(),
              .data_size_in = packet.size(), .repeat = 1);
  if (bpf_prog_test_run_opts(program, &options) == 0) return true;
  // Any other refusal is about this attempt, not about every one.
  return errno != kNotSupported && errno != EOPNOTSUPP;
}

std::string EndOf(std::string_view log) {
  if (log.size() > kMaxVerifierLogBytes) {
    log.remove_prefix(log.size() - kMaxVerifierLogBytes);
    // Begin with a whole line.
    log.remove_prefix(std::min(log.find('\n') + 1, log.size()));
  }
  return Printable(log);
}

// The line in which the verifier gives its reason: the last that is no count.
std::string VerdictOf(std::string_view log) {
  std::string verdict;
  while (!log.empty()) {
    const size_t end = std::min(log.find('\n'), log.size());
    const std::string_view line = log.substr(0, end);
    if (!line.empty() && !line.starts_with("processed ") &&
        !line.starts_with("verification time") &&
        !line.starts_with("stack depth")) {
      verdict = std::string(line.substr(0, 200));
    }
    log.remove_prefix(std::min(end + 1, log.size()));
  }
  return verdict;
}

absl::Status LoadError(int error, std::string_view log,
                       const std::string& libbpf) {
  if (MayPass(error)) return RefuseWhatMayPass("loading it", error);
  switch (error) {
    case EOPNOTSUPP:
    case kNotSupported:
    case ENOSYS:
      return Refuse(v1::REASON_KERNEL_TOO_OLD,
                    absl::StrCat("the kernel cannot do what the program asks "
                                 "for: ",
                                 libbpf));
    case EPERM:
      return Refuse(v1::REASON_LOAD_FAILED,
                    absl::StrCat("loading it failed: ", std::strerror(error)));
    default:
      break;
  }
  if (const std::string verdict = VerdictOf(log); !verdict.empty()) {
    return Refuse(v1::REASON_VERIFIER,
                  absl::StrCat("the verifier refused it: ", verdict));
  }
  // No word of the verifier's: it failed before, at a map or a relocation.
  return Refuse(v1::REASON_LOAD_FAILED,
                absl::StrCat("loading it failed: ", std::strerror(error),
                             libbpf.empty() ? "" : "; ", libbpf));
}

// Constants as an instance has them, so that the verifier follows the branches
// that it will follow then; a nonce that no program can be written to expect.
absl::Status SetTrialGate(bpf_object* object, v1::Manifest::OnRevoke answer) {
  struct {
    uint64_t nonce;
    uint32_t slot;
  } random{};
  if (getrandom(&random, sizeof(random), 0) != sizeof(random)) {
    return absl::InternalError(
        absl::StrCat("getrandom: ", std::strerror(errno)));
  }
  return SetGate(object, random.slot % kGateSlots, random.nonce | 1, answer);
}

absl::Status Load(bpf_object* object, std::vector<char>& buffer) {
  const LibbpfLog log;
  bpf_program* program;
  bpf_object__for_each_program(program, object) {
    bpf_program__set_log_buf(program, buffer.data(), buffer.size());
  }
  if (bpf_object__load(object) < 0) {
    const int error = errno;
    return LoadError(error, buffer.data(), log.LastLine());
  }
  return absl::OkStatus();
}

absl::Status LoadWithTwin(bpf_object* object, int twin,
                          std::vector<char>& buffer) {
  if (bpf_map__reuse_fd(GateOf(object), twin) < 0) {
    if (MayPass(errno))
      return RefuseWhatMayPass("putting the twin in place", errno);
    return absl::InternalError(
        absl::StrCat("putting the twin in place: ", std::strerror(errno)));
  }
  return Load(object, buffer);
}

TrialResult RunWithoutGate(bpf_object* object, const v1::Manifest& manifest) {
  TrialResult result;
  std::vector<char> log(kLogBufferBytes, '\0');
  ForgetConstants(object);
  result.status = Load(object, log);
  log.back() = '\0';
  if (!result.status.ok()) {
    result.verifier_log = EndOf(log.data());
    return result;
  }
  result.status = CheckSwapAccess(object, manifest);
  result.runnable = IsRunnable(bpf_program__fd(ProgramOf(object)));
  return result;
}

}  // namespace

absl::StatusOr<Trial> Trial::Create() {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_RDONLY_PROG);
  // By the gate's name: libbpf names the map after what is put in its place.
  UniqueFd twin(bpf_map_create(BPF_MAP_TYPE_ARRAY, "bpfgrant_gate",
                               sizeof(uint32_t), sizeof(bpfgrant_gate_entry),
                               kGateSlots, &options));
  if (!twin.valid()) {
    return absl::ErrnoToStatus(errno, "making the gate's twin");
  }
  bpf_map_info info{};
  uint32_t size = sizeof(info);
  if (bpf_map_get_info_by_fd(twin.get(), &info, &size) < 0) {
    return absl::InternalError(
        absl::StrCat("asking about the gate's twin: ", std::strerror(errno)));
  }
  return Trial(std::move(twin), info.id);
}

// The verifier does not look at branches that an instance's constants rule out.
// A program could show its best side for the trial's nonce and write gates for
// others; with the gate's variables unknown it has to show all of them.
absl::Status Trial::RunForAnyGate(std::string_view bytes,
                                  const v1::Manifest& manifest,
                                  std::vector<char>& log) const {
  const auto object = OpenProgram(bytes, manifest);
  if (!object.ok()) return object.status();
  if (IsLoop(manifest)) {
    if (auto status = SetLoopConstants(object->get(), manifest, Mitigations());
        !status.ok()) {
      return status;
    }
  }
  ForgetConstants(object->get());
  return LoadWithTwin(object->get(), twin_.get(), log);
}

TrialResult Trial::Run(std::string_view bytes,
                       const v1::Manifest& manifest) const {
  TrialResult result;
  auto object = OpenProgram(bytes, manifest);
  if (!object.ok()) {
    result.status = object.status();
    return result;
  }
  if (IsUnrevocable(manifest)) return RunWithoutGate(object->get(), manifest);
  result.status = SetTrialGate(object->get(), manifest.program().on_revoke());
  if (result.status.ok() && IsLoop(manifest)) {
    result.status = SetLoopConstants(object->get(), manifest, Mitigations());
  }
  if (!result.status.ok()) return result;
  std::vector<char> log(kLogBufferBytes, '\0');
  result.status = LoadWithTwin(object->get(), twin_.get(), log);
  if (result.status.ok()) result.status = RunForAnyGate(bytes, manifest, log);
  log.back() = '\0';
  if (!result.status.ok()) {
    result.verifier_log = EndOf(log.data());
    return result;
  }
  const auto gated = AllUseMap(object->get(), id_);
  if (!gated.ok()) {
    result.status = gated.status();
  } else if (!*gated) {
    result.status =
        Refuse(v1::REASON_GATE_MISSING, "the program never looks at the gate");
  } else if (IsTracing(manifest)) {
    // Nobody gets its fd.
    result.status = CheckAsksWhom(object->get());
  } else {
    result.status = CheckSwapAccess(object->get(), manifest);
    result.runnable = IsRunnable(bpf_program__fd(ProgramOf(object->get())));
  }
  return result;
}

}  // namespace bpfgrant::daemon

#include "daemon/loader/requests.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/executable.h"
#include "daemon/loader/instance.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/object.h"
#include "daemon/loader/privileges.h"
#include "daemon/loader/safe_file.h"
#include "daemon/loader/tracing_manifest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

// Whether `fd` is a BPF program of `type`. The kernel answers the same question
// about maps, whose types have the same numbers, so its name is asked first.
bool IsProgram(int fd, uint32_t type) {
  std::array<char, 64> target;
  const ssize_t length = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(),
                                  target.data(), target.size());
  if (length < 0 ||
      std::string_view(target.data(), length) != "anon_inode:bpf-prog") {
    return false;
  }
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  return bpf_prog_get_info_by_fd(fd, &info, &size) == 0 && info.type == type;
}

// Whether a request that waited behind a reload has been given up by now.
bool IsLate(int64_t until_ns) {
  return Children::Clock::now().time_since_epoch() >
         std::chrono::nanoseconds(until_ns);
}

absl::Status TooBusy() {
  return Refuse(v1::REASON_BUSY, "the loader was busy for too long");
}

void AddIds(const ObjectIds& made, LoadReply& reply) {
  for (const ObjectId& object : made) {
    if (object.program) {
      reply.add_program_id(object.id);
    } else {
      reply.add_map_id(object.id);
    }
  }
}

// Fds that come with a request, but for those that say themselves what they may
// bring: a load, a configuration.
size_t FdsBeside(LoaderRequest::BodyCase body) {
  switch (body) {
    case LoaderRequest::kAttach:
      return 2;
    case LoaderRequest::kAttachLoop:
    case LoaderRequest::kEnroll:
    case LoaderRequest::kExecutable:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

absl::Status Requests::SendReady(const v1::KernelFacts& kernel,
                                 UniqueFd snapshot, UniqueFd grace_keeper) {
  UniqueFd gates(dup(gates_.fd()));
  if (!gates.valid()) return absl::InternalError(std::strerror(errno));
  LoaderReply reply;
  reply.mutable_ready()->set_loader_pid(static_cast<uint32_t>(getpid()));
  reply.mutable_ready()->set_gate_slots(kGateSlots);
  *reply.mutable_ready()->mutable_kernel() = kernel;
  if (!census_.ok()) {
    reply.mutable_ready()->set_no_census(
        Printable(std::string(census_.status().message())));
  }
  if (!MayLookAtProcesses()) {
    reply.mutable_ready()->set_no_executables(
        "bpfgrantd was started without CAP_SYS_PTRACE");
  }
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(gates));
  fds.push_back(std::move(snapshot));
  fds.push_back(std::move(grace_keeper));
  for (const UniqueFd* map : {&loop_maps_.trace, &loop_maps_.steps}) {
    if (!map->valid()) continue;
    fds.emplace_back(fcntl(map->get(), F_DUPFD_CLOEXEC, 0));
    if (!fds.back().valid()) return absl::InternalError(std::strerror(errno));
  }
  return broker_.Send(std::move(reply), std::move(fds));
}

absl::Status Requests::SendRefusal(uint64_t id, const absl::Status& why) {
  LoaderReply reply;
  reply.set_id(id);
  *reply.mutable_refusal() = RefusalOf(why);
  return broker_.Send(std::move(reply), {});
}

absl::StatusOr<std::shared_ptr<const Program>> Requests::FindAvailable(
    const std::string& name) const {
  std::shared_ptr<const Program> program = catalog_.Find(name);
  if (program == nullptr) {
    return Refuse(v1::REASON_UNKNOWN_PROGRAM,
                  absl::StrCat("there is no program '", name, "'"));
  }
  if (!program->available()) {
    return Refuse(v1::REASON_PROGRAM_UNAVAILABLE,
                  absl::StrCat("'", name, "' is not available: ",
                               program->entry.description().refusal()));
  }
  return program;
}

absl::StatusOr<std::shared_ptr<const Program>> Requests::FindToLoad(
    const LoadRequest& request) const {
  auto program = FindAvailable(request.program());
  if (!program.ok()) return program.status();
  if ((*program)->entry.identity() != request.identity()) {
    return Refuse(v1::REASON_PROGRAM_UNAVAILABLE,
                  absl::StrCat("'", request.program(),
                               "' is another one since the last reload"));
  }
  if (request.gate_slot() >= kGateSlots || request.gate_nonce() == 0) {
    return Refuse(v1::REASON_INVALID_ARGUMENT, "there is no such gate");
  }
  return program;
}

absl::Status Requests::OnLoad(uint64_t id, const LoadRequest& request,
                              std::vector<UniqueFd> session_maps) {
  const auto program = FindToLoad(request);
  if (!program.ok()) return SendRefusal(id, program.status());
  if (!session_maps.empty() &&
      session_maps.size() !=
          static_cast<size_t>((*program)->entry.session_map_size())) {
    return absl::InvalidArgumentError("a load with the wrong fds");
  }
  if (IsTracing((*program)->manifest->message())) {
    return LoadMaps(id, request, **program);
  }
  const DaemonMaps maps{gates_.fd(), loop_maps_.trace.get(),
                        loop_maps_.steps.get()};
  const std::vector<v1::ParameterValue> parameters(request.parameter().begin(),
                                                   request.parameter().end());
  auto instance =
      LoadInstance(**program, maps, request.gate_slot(), request.gate_nonce(),
                   options_.mitigations, session_maps, parameters);
  if (!instance.ok()) return SendRefusal(id, instance.status());
  const ObjectRegister::Gate gate{request.gate_slot(), request.gate_nonce()};
  LoaderReply reply;
  reply.set_id(id);
  for (const ObjectIds* made :
       {&instance->objects, &instance->session_objects}) {
    AddIds(*made, *reply.mutable_load());
  }
  const uint32_t program_id = instance->objects.front().id;
  if (census_.ok()) {
    register_.Enter(gate, request.program(), std::move(instance->objects),
                    std::move(instance->session_objects));
  }
  if (auto status =
          configurations_.Keep(gate, *program, std::move(instance->entry_maps));
      !status.ok()) {
    return SendRefusal(id, status);
  }
  std::vector<UniqueFd> fds;
  if (IsLoop((*program)->manifest->message())) {
    loops_.Keep(gate, std::move(instance->program), *program);
  } else {
    reply.mutable_load()->add_fd_id(program_id);
    fds.push_back(std::move(instance->program));
  }
  ObjectIds ids;
  for (std::vector<UniqueFd>* maps :
       {&instance->handles, &instance->session_maps}) {
    for (UniqueFd& map : *maps) {
      if (auto status = AddMapId(map.get(), ids); !status.ok()) {
        return SendRefusal(id, status);
      }
      fds.push_back(std::move(map));
    }
  }
  for (const ObjectId& map : ids) reply.mutable_load()->add_fd_id(map.id);
  return broker_.Send(std::move(reply), std::move(fds));
}

absl::Status Requests::LoadMaps(uint64_t id, const LoadRequest& request,
                                const Program& program) {
  auto handles = machine_programs_.Load(
      program, {gates_.fd()}, {request.gate_slot(), request.gate_nonce()});
  if (!handles.ok()) return SendRefusal(id, handles.status());
  // What a client can keep of it.
  ObjectIds maps;
  for (const UniqueFd& handle : *handles) {
    if (auto status = AddMapId(handle.get(), maps); !status.ok()) {
      return SendRefusal(id, status);
    }
  }
  LoaderReply reply;
  reply.set_id(id);
  AddIds(maps, *reply.mutable_load());
  *reply.mutable_load()->mutable_fd_id() = reply.load().map_id();
  if (census_.ok()) {
    register_.Enter({request.gate_slot(), request.gate_nonce()},
                    request.program(), std::move(maps), {});
  }
  return broker_.Send(std::move(reply), *std::move(handles));
}

absl::Status Requests::OnEnroll(uint64_t id, const EnrollRequest& request,
                                UniqueFd pidfd) {
  if (IsLate(request.until_ns())) return SendRefusal(id, TooBusy());
  LoaderReply reply;
  reply.mutable_enroll();
  return Answer(
      id,
      machine_programs_.Enroll({request.gate_slot(), request.gate_nonce()},
                               std::move(pidfd)),
      std::move(reply));
}

absl::Status Requests::OnDismiss(uint64_t id, const DismissRequest& request) {
  machine_programs_.Dismiss({request.gate_slot(), request.gate_nonce()});
  configurations_.Forget({request.gate_slot(), request.gate_nonce()});
  LoaderReply reply;
  reply.mutable_dismiss();
  return Answer(id, absl::OkStatus(), std::move(reply));
}

absl::Status Requests::OnExecutable(uint64_t id,
                                    const ExecutableRequest& request,
                                    UniqueFd pidfd) {
  if (IsLate(request.until_ns())) return SendRefusal(id, TooBusy());
  Children::Job job;
  job.id = id;
  job.owner = request.owner();
  job.deadline = Children::Clock::now() + kAttachDeadline;
  job.fds.push_back(std::move(pidfd));
  job.work = [request, mitigations = options_.mitigations](
                 const std::vector<UniqueFd>& fds) {
    return ReadExecutable(request, fds[0].get(), mitigations)
        .SerializeAsString();
  };
  executables_.Start(std::move(job));
  return absl::OkStatus();
}

absl::Status Requests::AnswerExecutables() {
  for (const Children::Result& result : executables_.Collect()) {
    LoaderReply reply;
    ExecutableReply& facts = *reply.mutable_executable();
    absl::Status status;
    if (result.end == Children::End::kTooLate ||
        result.end == Children::End::kNotBegun) {
      status = Refuse(v1::REASON_BUSY,
                      "what the process executes could not be read in time");
    } else if (result.end == Children::End::kDied ||
               !facts.ParseFromString(result.said)) {
      facts.Clear();
      facts.set_unknown("who read it ended without a word");
    }
    auto sent = Answer(result.id, status, std::move(reply));
    if (!sent.ok()) return sent;
  }
  return absl::OkStatus();
}

absl::Status Requests::OnAttachLoop(uint64_t id,
                                    const AttachLoopRequest& request,
                                    UniqueFd pidfd) {
  if (IsLate(request.until_ns())) return SendRefusal(id, TooBusy());
  loops_.Attach(id, {request.gate_slot(), request.gate_nonce()},
                std::move(pidfd), request.ring(), request.owner());
  return absl::OkStatus();
}

absl::Status Requests::OnDetachLoop(uint64_t id,
                                    const DetachLoopRequest& request) {
  loops_.Detach({request.gate_slot(), request.gate_nonce()});
  LoaderReply reply;
  reply.set_id(id);
  reply.mutable_detach_loop();
  return broker_.Send(std::move(reply), {});
}

absl::Status Requests::OnAttach(uint64_t id, const AttachRequest& request,
                                std::vector<UniqueFd> fds) {
  const auto program = FindAvailable(request.program());
  if (!program.ok()) return SendRefusal(id, program.status());
  const v1::Manifest::Program& approved =
      (*program)->manifest->message().program();
  if (std::find(approved.delivery().begin(), approved.delivery().end(),
                v1::DELIVERY_ATTACH) == approved.delivery().end()) {
    return SendRefusal(
        id, Refuse(v1::REASON_DELIVERY_NOT_ALLOWED,
                   absl::StrCat("the manifest of '", request.program(),
                                "' allows no attachment")));
  }
  if (!IsProgram(fds[0].get(), KernelType(approved.type()))) {
    return SendRefusal(id, Refuse(v1::REASON_INVALID_ARGUMENT,
                                  "the fd is no program of that type"));
  }
  // What the client sent must stay as it is then.
  if (IsLate(request.until_ns())) return SendRefusal(id, TooBusy());
  attacher_.Start(id, request.owner(), std::move(fds[0]), std::move(fds[1]),
                  TargetOf(approved));
  return absl::OkStatus();
}

absl::Status Requests::OnLook(uint64_t id, const LookRequest& request) {
  if (!census_.ok()) return SendRefusal(id, census_.status());
  const auto begin = Children::Clock::now();
  const auto existing = census_->Take();
  if (!existing.ok()) return SendRefusal(id, existing.status());
  LoaderReply reply;
  reply.set_id(id);
  *reply.mutable_look() = register_.Look(request, *existing);
  reply.mutable_look()->set_took_us(static_cast<uint32_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(
          Children::Clock::now() - begin)
          .count()));
  return broker_.Send(std::move(reply), {});
}

absl::Status Requests::OnStatistics(uint64_t id) {
  if (!statistics_.ok()) return SendRefusal(id, statistics_.status());
  const auto begin = Children::Clock::now();
  const auto activity = statistics_->Take();
  if (!activity.ok()) return SendRefusal(id, activity.status());
  const auto shared = machine_programs_.Programs();
  if (!shared.ok()) return SendRefusal(id, shared.status());
  StatisticsMessage message = run_totals_.Report(*activity, register_, *shared);
  message.set_at_ns(std::chrono::nanoseconds(begin.time_since_epoch()).count());
  auto sealed =
      SealedBytes::Copy(message.SerializeAsString(), "bpfgrant:statistics");
  if (!sealed.ok()) return SendRefusal(id, sealed.status());
  LoaderReply reply;
  reply.set_id(id);
  reply.mutable_statistics()->set_took_us(static_cast<uint32_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(
          Children::Clock::now() - begin)
          .count()));
  std::vector<UniqueFd> fds;
  fds.push_back((*std::move(sealed)).TakeFd());
  return broker_.Send(std::move(reply), std::move(fds));
}

absl::Status Requests::Handle(BrokerChannel::Request request) {
  const uint64_t id = request.message.id();
  if (!request.message.has_load() && !request.message.has_configure() &&
      request.fds.size() != FdsBeside(request.message.body_case())) {
    return absl::InvalidArgumentError("a request with the wrong fds");
  }
  switch (request.message.body_case()) {
    case LoaderRequest::kLoad:
      return OnLoad(id, request.message.load(), std::move(request.fds));
    case LoaderRequest::kAttach:
      return OnAttach(id, request.message.attach(), std::move(request.fds));
    case LoaderRequest::kReload:
      reloads_.push_back(id);
      return absl::OkStatus();
    case LoaderRequest::kAttachLoop:
      return OnAttachLoop(id, request.message.attach_loop(),
                          std::move(request.fds[0]));
    case LoaderRequest::kDetachLoop:
      return OnDetachLoop(id, request.message.detach_loop());
    case LoaderRequest::kLook:
      return OnLook(id, request.message.look());
    case LoaderRequest::kStatistics:
      return OnStatistics(id);
    case LoaderRequest::kEnroll:
      return OnEnroll(id, request.message.enroll(), std::move(request.fds[0]));
    case LoaderRequest::kDismiss:
      return OnDismiss(id, request.message.dismiss());
    case LoaderRequest::kExecutable:
      return OnExecutable(id, request.message.executable(),
                          std::move(request.fds[0]));
    case LoaderRequest::kResume:
      return OnResume(id, request.message.resume());
    case LoaderRequest::kConfigure: {
      LoaderReply reply;
      reply.mutable_configure();
      return Answer(
          id,
          configurations_.Configure(request.message.configure(), request.fds),
          std::move(reply));
    }
    case LoaderRequest::BODY_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a request for nothing");
}

absl::Status Requests::Answer(uint64_t id, const absl::Status& status,
                              LoaderReply reply) {
  if (!status.ok()) return SendRefusal(id, status);
  reply.set_id(id);
  return broker_.Send(std::move(reply), {});
}

absl::Status Requests::AnswerChildren() {
  LoaderReply socket, loop;
  socket.mutable_attach();
  loop.mutable_attach_loop();
  for (const Attacher::Result& result : attacher_.Collect()) {
    auto sent = Answer(result.id, result.status, socket);
    if (!sent.ok()) return sent;
  }
  for (const Loops::Result& result : loops_.Collect()) {
    auto sent = Answer(result.id, result.status, loop);
    if (!sent.ok()) return sent;
  }
  return AnswerExecutables();
}

void Requests::AddTo(std::vector<pollfd>& polled) const {
  attacher_.AddTo(polled);
  executables_.AddTo(polled);
  loops_.AddTo(polled);
}

std::optional<Children::Clock::time_point> Requests::NextDeadline() const {
  std::optional<Children::Clock::time_point> next;
  for (const auto& deadline :
       {attacher_.NextDeadline(), executables_.NextDeadline(),
        loops_.NextDeadline()}) {
    if (deadline.has_value() && (!next.has_value() || *deadline < *next)) {
      next = deadline;
    }
  }
  return next;
}

}  // namespace bpfgrant::daemon

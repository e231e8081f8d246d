#include "daemon/loader/loader.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/attach.h"
#include "daemon/loader/broker_channel.h"
#include "daemon/loader/catalog.h"
#include "daemon/loader/census.h"
#include "daemon/loader/gate_map.h"
#include "daemon/loader/grace_keeper.h"
#include "daemon/loader/instance.h"
#include "daemon/loader/kernel.h"
#include "daemon/loader/loop_manifest.h"
#include "daemon/loader/loop_object.h"
#include "daemon/loader/loops.h"
#include "daemon/loader/machine_programs.h"
#include "daemon/loader/object.h"
#include "daemon/loader/object_register.h"
#include "daemon/loader/policy_files.h"
#include "daemon/loader/privileges.h"
#include "daemon/loader/safe_file.h"
#include "daemon/loader/tracing_manifest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

// Requests taken in one turn, before attachments get theirs.
constexpr int kRequestsPerTurn = 16;

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
  return Attacher::Clock::now().time_since_epoch() >
         std::chrono::nanoseconds(until_ns);
}

absl::Status TooBusy() {
  return Refuse(v1::REASON_BUSY, "the loader was busy for too long");
}

// Fds that come with a request, but for a load, which says itself what it may
// bring.
size_t FdsBeside(LoaderRequest::BodyCase body) {
  switch (body) {
    case LoaderRequest::kAttach:
      return 2;
    case LoaderRequest::kAttachLoop:
    case LoaderRequest::kEnroll:
      return 1;
    default:
      return 0;
  }
}

class Loader {
 public:
  Loader(BrokerChannel& broker, const LoaderOptions& options, GateMap& gates,
         Admission admission, UniqueFd trace, UniqueFd steps,
         absl::StatusOr<Census> census)
      : broker_(broker),
        options_(options),
        gates_(gates),
        admission_(std::move(admission)),
        trace_(std::move(trace)),
        steps_(std::move(steps)),
        census_(std::move(census)),
        attacher_(options.mitigations),
        loops_(options.mitigations),
        machine_programs_(options.mitigations) {}

  // Reads catalog and policy and puts both in force, or changes nothing.
  // Returns the snapshot for the broker.
  absl::StatusOr<UniqueFd> Read();
  absl::Status SendReady(const v1::KernelFacts& kernel, UniqueFd snapshot);
  // Until the broker is gone (kOutOfRange) or breaks the protocol (any other).
  absl::Status Serve();

 private:
  absl::Status TakeRequests();
  absl::Status Handle(BrokerChannel::Request request);
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
  absl::Status OnEnroll(uint64_t id, const EnrollRequest& request,
                        UniqueFd pidfd);
  absl::Status OnDismiss(uint64_t id, const DismissRequest& request);
  absl::Status OnReload(uint64_t id);
  absl::Status LoadMaps(uint64_t id, const LoadRequest& request,
                        const Program& program);
  absl::Status Answer(uint64_t id, const absl::Status& status,
                      LoaderReply reply);
  absl::Status AnswerAttachments();
  int Timeout() const;

  BrokerChannel& broker_;
  const LoaderOptions& options_;
  GateMap& gates_;
  Admission admission_;
  // Invalid: this kernel has no loops.
  UniqueFd trace_;
  UniqueFd steps_;
  const absl::StatusOr<Census> census_;
  ObjectRegister register_;
  Attacher attacher_;
  Loops loops_;
  MachinePrograms machine_programs_;
  Catalog catalog_;
};

absl::StatusOr<UniqueFd> Loader::Read() {
  auto rules = ReadPolicy(options_.policy_directories, options_.mitigations);
  if (!rules.ok()) return rules.status();
  auto catalog = Catalog::Read(options_.catalog_directories, admission_);
  if (!catalog.ok()) return catalog.status();
  auto snapshot = SealedBytes::Copy(
      catalog->Describe(*rules).SerializeAsString(), "bpfgrant:snapshot");
  if (!snapshot.ok()) return snapshot.status();
  catalog_ = *std::move(catalog);
  return (*std::move(snapshot)).TakeFd();
}

absl::Status Loader::SendReady(const v1::KernelFacts& kernel,
                               UniqueFd snapshot) {
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
  std::vector<UniqueFd> fds;
  fds.push_back(std::move(gates));
  fds.push_back(std::move(snapshot));
  auto keeper = StartGraceKeeper();
  if (!keeper.ok()) return keeper.status();
  fds.push_back(*std::move(keeper));
  for (const UniqueFd* map : {&trace_, &steps_}) {
    if (!map->valid()) continue;
    fds.emplace_back(fcntl(map->get(), F_DUPFD_CLOEXEC, 0));
    if (!fds.back().valid()) return absl::InternalError(std::strerror(errno));
  }
  return broker_.Send(std::move(reply), std::move(fds));
}

absl::Status Loader::SendRefusal(uint64_t id, const absl::Status& why) {
  LoaderReply reply;
  reply.set_id(id);
  *reply.mutable_refusal() = RefusalOf(why);
  return broker_.Send(std::move(reply), {});
}

absl::StatusOr<std::shared_ptr<const Program>> Loader::FindAvailable(
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

absl::StatusOr<std::shared_ptr<const Program>> Loader::FindToLoad(
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

absl::Status Loader::OnLoad(uint64_t id, const LoadRequest& request,
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
  const DaemonMaps maps{gates_.fd(), trace_.get(), steps_.get()};
  auto instance =
      LoadInstance(**program, maps, request.gate_slot(), request.gate_nonce(),
                   options_.mitigations, session_maps);
  if (!instance.ok()) return SendRefusal(id, instance.status());
  const ObjectRegister::Gate gate{request.gate_slot(), request.gate_nonce()};
  if (census_.ok()) {
    register_.Enter(gate, std::move(instance->objects),
                    std::move(instance->session_objects));
  }
  LoaderReply reply;
  reply.set_id(id);
  reply.mutable_load();
  std::vector<UniqueFd> fds;
  if (IsLoop((*program)->manifest->message())) {
    loops_.Keep(gate, std::move(instance->program), *program);
  } else {
    fds.push_back(std::move(instance->program));
  }
  for (UniqueFd& handle : instance->handles) fds.push_back(std::move(handle));
  for (UniqueFd& map : instance->session_maps) fds.push_back(std::move(map));
  return broker_.Send(std::move(reply), std::move(fds));
}

absl::Status Loader::LoadMaps(uint64_t id, const LoadRequest& request,
                              const Program& program) {
  auto handles =
      machine_programs_.Load(program, {gates_.fd(), trace_.get()},
                             {request.gate_slot(), request.gate_nonce()});
  if (!handles.ok()) return SendRefusal(id, handles.status());
  // What a client can keep of it.
  ObjectIds maps;
  for (const UniqueFd& handle : *handles) {
    if (auto status = AddMapId(handle.get(), maps); !status.ok()) {
      return SendRefusal(id, status);
    }
  }
  if (census_.ok()) {
    register_.Enter({request.gate_slot(), request.gate_nonce()},
                    std::move(maps), {});
  }
  LoaderReply reply;
  reply.set_id(id);
  reply.mutable_load();
  return broker_.Send(std::move(reply), *std::move(handles));
}

absl::Status Loader::OnEnroll(uint64_t id, const EnrollRequest& request,
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

absl::Status Loader::OnDismiss(uint64_t id, const DismissRequest& request) {
  machine_programs_.Dismiss({request.gate_slot(), request.gate_nonce()});
  LoaderReply reply;
  reply.mutable_dismiss();
  return Answer(id, absl::OkStatus(), std::move(reply));
}

absl::Status Loader::OnAttachLoop(uint64_t id, const AttachLoopRequest& request,
                                  UniqueFd pidfd) {
  if (IsLate(request.until_ns())) return SendRefusal(id, TooBusy());
  loops_.Attach(id, {request.gate_slot(), request.gate_nonce()},
                std::move(pidfd), request.ring(), request.owner());
  return absl::OkStatus();
}

absl::Status Loader::OnDetachLoop(uint64_t id,
                                  const DetachLoopRequest& request) {
  loops_.Detach({request.gate_slot(), request.gate_nonce()});
  LoaderReply reply;
  reply.set_id(id);
  reply.mutable_detach_loop();
  return broker_.Send(std::move(reply), {});
}

absl::Status Loader::OnAttach(uint64_t id, const AttachRequest& request,
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

absl::Status Loader::OnLook(uint64_t id, const LookRequest& request) {
  if (!census_.ok()) return SendRefusal(id, census_.status());
  const auto begin = Attacher::Clock::now();
  const auto existing = census_->Take();
  if (!existing.ok()) return SendRefusal(id, existing.status());
  LoaderReply reply;
  reply.set_id(id);
  *reply.mutable_look() = register_.Look(request, *existing);
  reply.mutable_look()->set_took_us(static_cast<uint32_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(
          Attacher::Clock::now() - begin)
          .count()));
  return broker_.Send(std::move(reply), {});
}

absl::Status Loader::OnReload(uint64_t id) {
  auto snapshot = Read();
  if (!snapshot.ok()) {
    // One advice is enough.
    std::string what(snapshot.status().message());
    const std::string_view advice = NextStep(ReasonOf(snapshot.status()));
    if (what.ends_with(advice)) what.resize(what.size() - advice.size());
    return SendRefusal(id, Refuse(v1::REASON_RELOAD_REJECTED, what));
  }
  LoaderReply reply;
  reply.set_id(id);
  reply.mutable_reload();
  std::vector<UniqueFd> fds;
  fds.push_back(*std::move(snapshot));
  return broker_.Send(std::move(reply), std::move(fds));
}

absl::Status Loader::Handle(BrokerChannel::Request request) {
  const uint64_t id = request.message.id();
  if (!request.message.has_load() &&
      request.fds.size() != FdsBeside(request.message.body_case())) {
    return absl::InvalidArgumentError("a request with the wrong fds");
  }
  switch (request.message.body_case()) {
    case LoaderRequest::kLoad:
      return OnLoad(id, request.message.load(), std::move(request.fds));
    case LoaderRequest::kAttach:
      return OnAttach(id, request.message.attach(), std::move(request.fds));
    case LoaderRequest::kReload:
      return OnReload(id);
    case LoaderRequest::kAttachLoop:
      return OnAttachLoop(id, request.message.attach_loop(),
                          std::move(request.fds[0]));
    case LoaderRequest::kDetachLoop:
      return OnDetachLoop(id, request.message.detach_loop());
    case LoaderRequest::kLook:
      return OnLook(id, request.message.look());
    case LoaderRequest::kEnroll:
      return OnEnroll(id, request.message.enroll(), std::move(request.fds[0]));
    case LoaderRequest::kDismiss:
      return OnDismiss(id, request.message.dismiss());
    case LoaderRequest::BODY_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a request for nothing");
}

absl::Status Loader::TakeRequests() {
  for (int i = 0; i < kRequestsPerTurn; ++i) {
    auto request = broker_.Receive();
    if (absl::IsUnavailable(request.status())) return absl::OkStatus();
    if (!request.ok()) return request.status();
    if (auto status = Handle(*std::move(request)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Loader::Answer(uint64_t id, const absl::Status& status,
                            LoaderReply reply) {
  if (!status.ok()) return SendRefusal(id, status);
  reply.set_id(id);
  return broker_.Send(std::move(reply), {});
}

absl::Status Loader::AnswerAttachments() {
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
  return absl::OkStatus();
}

// Until when poll(2) may wait, in its milliseconds; -1: for ever.
int Loader::Timeout() const {
  const auto attacher = attacher_.NextDeadline();
  const auto loops = loops_.NextDeadline();
  if (!attacher.has_value() && !loops.has_value()) return -1;
  const auto next = !loops.has_value()      ? *attacher
                    : !attacher.has_value() ? *loops
                                            : std::min(*attacher, *loops);
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(
      next - Attacher::Clock::now());
  return static_cast<int>(std::max<int64_t>(left.count(), 0));
}

absl::Status Loader::Serve() {
  std::vector<pollfd> polled;
  for (;;) {
    polled.clear();
    polled.push_back({broker_.fd(), broker_.events(), 0});
    attacher_.AddTo(polled);
    loops_.AddTo(polled);
    if (poll(polled.data(), polled.size(), Timeout()) < 0 && errno != EINTR) {
      return absl::InternalError(absl::StrCat("poll: ", std::strerror(errno)));
    }
    if (auto status = AnswerAttachments(); !status.ok()) return status;
    if (auto status = broker_.Flush(); !status.ok()) return status;
    if (auto status = TakeRequests(); !status.ok()) return status;
    // Not read while replies pile up, its end must still be seen.
    if ((polled.front().revents & POLLERR) != 0 ||
        ((polled.front().revents & POLLHUP) != 0 &&
         (broker_.events() & POLLIN) == 0)) {
      return absl::OutOfRangeError("the broker is gone");
    }
  }
}

// What must be there before the first promise to the broker.
absl::Status Run(BrokerChannel& broker, const LoaderOptions& options,
                 bool& ready) {
  // Before the drop: some of it only root may see, some takes a ring.
  const v1::KernelFacts kernel = ReadKernelFacts();
  if (auto status = DropToLoader(kernel.io_uring_loops()); !status.ok()) {
    return status;
  }
  auto admission = Admission::Create(kernel, options.mitigations);
  if (!admission.ok()) return admission.status();
  auto gates = GateMap::Create();
  if (!gates.ok()) return gates.status();
  UniqueFd trace, steps;
  if (kernel.io_uring_loops()) {
    auto made = MakeTraceBuffer();
    if (!made.ok()) return made.status();
    trace = *std::move(made);
    made = MakeStepsMap();
    if (!made.ok()) return made.status();
    steps = *std::move(made);
  }
  Loader loader(broker, options, *gates, *std::move(admission),
                std::move(trace), std::move(steps), Census::Create());
  auto snapshot = loader.Read();
  if (!snapshot.ok()) return snapshot.status();
  ready = true;
  auto status = loader.SendReady(kernel, *std::move(snapshot));
  if (status.ok()) status = loader.Serve();
  gates->CloseAll();
  return status;
}

}  // namespace

int RunLoader(UniqueFd socket, const LoaderOptions& options) {
  BrokerChannel broker(std::move(socket));
  bool ready = false;
  const absl::Status end = Run(broker, options, ready);
  if (absl::IsOutOfRange(end)) return 0;
  if (!ready) {
    LoaderReply reply;
    *reply.mutable_refusal() = RefusalOf(end);
    // If it cannot be said, the exit status has to do.
    (void)broker.Send(std::move(reply), {});
  }
  return 1;
}

}  // namespace bpfgrant::daemon

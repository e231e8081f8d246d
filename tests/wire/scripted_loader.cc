#include "tests/wire/scripted_loader.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <array>
#include <utility>

#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/message_socket.h"

namespace bpfgrant::broker_test {

UniqueFd MemoryFile(const std::string& bytes) {
  UniqueFd file(memfd_create("test", MFD_CLOEXEC));
  EXPECT_TRUE(file.valid());
  EXPECT_EQ(write(file.get(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  return file;
}

ScriptedLoader::ScriptedLoader(broker::EventLoop& loop, UniqueFd socket,
                               int witness)
    : socket_(std::move(socket)), witness_(witness) {
  source_ = loop.Io(socket_.get(), EPOLLIN, [this](uint32_t) { OnReadable(); });
}

size_t ScriptedLoader::CountLoads(const std::string& program) const {
  size_t count = 0;
  for (const daemon::LoaderRequest& request : requests_) {
    count += request.has_load() && request.load().program() == program;
  }
  return count;
}

void ScriptedLoader::AnswerHeld() {
  load = attach = reload = look = executable = Mode::kAnswer;
  for (const daemon::LoaderRequest& request : std::exchange(held_, {})) {
    Serve(request, Mode::kAnswer);
  }
}

void ScriptedLoader::Die() {
  source_ = broker::EventLoop::Source();
  socket_.reset();
}

void ScriptedLoader::OnReadable() {
  std::array<char, kMaxFrameBytes> buffer;
  while (socket_.valid()) {
    absl::StatusOr<Packet> packet =
        ReceivePacket(socket_.get(), absl::MakeSpan(buffer), kMaxFdsPerGrant);
    if (absl::IsUnavailable(packet.status())) return;
    if (!packet.ok()) {
      Die();
      return;
    }
    daemon::LoaderRequest request;
    ASSERT_TRUE(request.ParseFromArray(packet->bytes.data(),
                                       static_cast<int>(packet->bytes.size())));
    if (!request.has_look()) requests_.push_back(request);
    if (request.has_attach()) attach_fds_.push_back(packet->fds.size());
    Serve(request, ModeOf(request));
  }
}

ScriptedLoader::Mode ScriptedLoader::ModeOf(
    const daemon::LoaderRequest& request) const {
  if (request.has_load()) return load;
  if (request.has_attach()) return attach;
  if (request.has_executable()) return executable;
  return request.has_look() ? look : reload;
}

daemon::LookReply ScriptedLoader::Look(const daemon::LookRequest& request) {
  daemon::LookReply reply;
  for (int i = 0; i < request.instance_size(); ++i) {
    looked_at_.push_back(request.instance(i));
    const std::string object = left ? left(request.instance(i)) : "";
    if (object.empty()) continue;
    daemon::LookReply::Held& held = *reply.add_held();
    held.set_index(static_cast<uint32_t>(i));
    held.set_object(object);
  }
  return reply;
}

void ScriptedLoader::Serve(const daemon::LoaderRequest& request, Mode mode) {
  daemon::LoaderReply reply;
  reply.set_id(request.id());
  switch (mode) {
    case Mode::kSilent:
      held_.push_back(request);
      return;
    case Mode::kDie:
      Die();
      return;
    case Mode::kNonsense:
      SendPacket(socket_.get(), "\xff\xff\xff", {}).IgnoreError();
      return;
    case Mode::kRefuse:
      *reply.mutable_refusal() =
          RefusalOf(Refuse(request.has_load()     ? v1::REASON_LOAD_FAILED
                           : request.has_attach() ? v1::REASON_ATTACH_FAILED
                                                  : v1::REASON_RELOAD_REJECTED,
                           "as the test wants it"));
      Reply(reply, {});
      return;
    case Mode::kShort:
      *reply.mutable_refusal() =
          RefusalOf(Refuse(v1::REASON_BUSY, "loading: Cannot allocate memory"));
      Reply(reply, {});
      return;
    default:
      break;
  }
  std::vector<UniqueFd> fds;
  if (request.has_load()) {
    reply.mutable_load();
    fds = MakeInstance(request.load().program(), mode);
  } else if (request.has_attach()) {
    reply.mutable_attach();
  } else if (request.has_look()) {
    *reply.mutable_look() = Look(request.look());
  } else if (request.has_executable()) {
    *reply.mutable_executable() = executes;
  } else {
    reply.mutable_reload();
    fds.push_back(MemoryFile(next.SerializeAsString()));
  }
  Reply(reply, std::move(fds));
}

std::vector<UniqueFd> ScriptedLoader::MakeInstance(const std::string& program,
                                                   Mode mode) {
  size_t count = 1 + handles[program];
  if (mode == Mode::kFewerFds) --count;
  if (mode == Mode::kMoreFds) ++count;
  if (mode == Mode::kTooManyFds) count = kMaxFdsPerGrant + 1;
  std::vector<UniqueFd> fds;
  for (size_t i = 0; i < count; ++i) {
    // Each memfd is a file of its own, by which an instance can be recognized.
    fds.push_back(i == 0 ? UniqueFd(fcntl(witness_, F_DUPFD_CLOEXEC, 0))
                         : UniqueFd(memfd_create("handle", MFD_CLOEXEC)));
  }
  return fds;
}

void ScriptedLoader::Reply(const daemon::LoaderReply& reply,
                           std::vector<UniqueFd> fds) {
  const absl::Status sent =
      SendPacket(socket_.get(), reply.SerializeAsString(), Numbers(fds));
  EXPECT_TRUE(sent.ok() || absl::IsOutOfRange(sent)) << sent;
}

}  // namespace bpfgrant::broker_test

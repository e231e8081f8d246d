// What goes through the library's Connection.

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/kernel_objects.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

std::string Connect(Client& client, const Words& words) {
  auto connection = Connection::Connect({.path = words.at(0)});
  if (!connection.ok()) return Describe(connection.status());
  client.connection.emplace(*std::move(connection));
  const v1::HelloReply& session = client.connection->session();
  return absl::StrCat("ok ", session.session(), " ", session.uid(), " ",
                      session.pid());
}

// Numbers it, maps its ring buffer, and tells everything of it.
std::string Keep(Client& client, Grant grant) {
  std::string text = absl::StrCat("ok ", client.grants.size(), " ", grant.id());
  absl::StrAppend(&text, grant.delivery() == v1::DELIVERY_PROGRAM ? " program"
                         : grant.delivery() == v1::DELIVERY_PROCESS
                             ? " process"
                             : " attach");
  std::unique_ptr<RingBuffer> samples;
  for (const Grant::Handle& handle : grant.handles()) {
    const bool program = handle.description.kind() == v1::HANDLE_KIND_PROGRAM;
    const int fd = handle.fd.get();
    absl::StrAppend(&text, " ", handle.description.name(), "=",
                    program ? IdOfProgram(fd) : IdOfMap(fd));
    if (handle.description.kind() != v1::HANDLE_KIND_RING_BUFFER) continue;
    auto mapped = RingBuffer::Map(handle);
    if (!mapped.ok()) return Describe(mapped.status());
    samples = std::make_unique<RingBuffer>(*std::move(mapped));
  }
  client.grants.push_back({std::move(grant), std::move(samples)});
  return text;
}

// acquire PROGRAM any|program|attach [socket=N | fd=N] [handles=NAME,NAME]
std::string Acquire(Client& client, const Words& words) {
  Connection::AcquireOptions options;
  options.program = words.at(0);
  options.interface = absl::StrCat(words.at(0), "/1");
  options.delivery = words.at(1) == "any"       ? v1::DELIVERY_ANY
                     : words.at(1) == "program" ? v1::DELIVERY_PROGRAM
                                                : v1::DELIVERY_ATTACH;
  for (absl::string_view word : words) {
    if (absl::ConsumePrefix(&word, "socket=")) {
      options.target = SocketAt(client, std::string(word));
    } else if (absl::ConsumePrefix(&word, "fd=")) {
      options.target = static_cast<int>(Number(std::string(word)));
    } else if (absl::ConsumePrefix(&word, "handles=")) {
      options.handles = absl::StrSplit(word, ',');
    }
  }
  auto grant = client.connection.value().Acquire(options);
  if (!grant.ok()) return Describe(grant.status());
  return Keep(client, *std::move(grant));
}

std::string Release(Client& client, const Words& words) {
  const absl::Status status = GrantAt(client, words.at(0)).Release();
  return status.ok() ? "ok" : Describe(status);
}

// release-wait GRANT MILLISECONDS
std::string ReleaseAndWait(Client& client, const Words& words) {
  const absl::Status status =
      GrantAt(client, words.at(0))
          .ReleaseAndWait(std::chrono::milliseconds(Number(words.at(1))));
  return status.ok() ? "ok" : Describe(status);
}

// Why it ended, as the daemon's events said; "live" while it has not.
std::string Ended(Client& client, const Words& words) {
  client.connection.value().ProcessEvents().IgnoreError();
  const Grant& grant = GrantAt(client, words.at(0));
  return absl::StrCat("ok ",
                      grant.ended() ? ReasonName(grant.end_reason()) : "live");
}

// The next event: event MILLISECONDS
std::string NextEvent(Client& client, const Words& words) {
  const auto event = client.connection.value().WaitEvent(
      std::chrono::milliseconds(Number(words.at(0))));
  if (!event.ok()) return absl::StrCat("failed: ", event.status().ToString());
  return absl::StrCat("ok ", v1::Event::Type_Name(event->type()), " ",
                      event->grant().grant(), " ", ReasonName(event->reason()));
}

// How many grants it sees, and of how many users.
std::string CountGrants(Client& client, const Words&) {
  const auto grants = client.connection.value().Grants();
  if (!grants.ok()) return Describe(grants.status());
  const auto others = std::count_if(
      grants->grant().begin(), grants->grant().end(),
      [](const v1::GrantInfo& grant) { return grant.uid() != getuid(); });
  return absl::StrCat("ok ", grants->grant_size(), " ", others);
}

// churn MILLISECONDS: for so long it acquires packet_samplers, keeps three of
// them, and releases the oldest, waiting or not for it to be gone. "ok", how
// many there were, and the numbers of those that it holds at the end.
std::string Churn(Client& client, const Words& words) {
  const auto until = std::chrono::steady_clock::now() +
                     std::chrono::milliseconds(Number(words.at(0)));
  std::deque<Grant> held;
  size_t acquired = 0;
  while (std::chrono::steady_clock::now() < until) {
    auto grant =
        client.connection.value().Acquire({.program = "packet_sampler",
                                           .interface = "packet_sampler/1",
                                           .delivery = v1::DELIVERY_PROGRAM});
    if (!grant.ok()) return Describe(grant.status());
    ++acquired;
    for (const Grant::Handle& handle : grant->handles()) {
      if (fcntl(handle.fd.get(), F_GETFD) < 0) return "failed: no fd";
    }
    held.push_back(*std::move(grant));
    if (held.size() <= 3) continue;
    if (held.front().ended()) {
      return absl::StrCat("failed: it ended, ",
                          ReasonName(held.front().end_reason()));
    }
    if (acquired % 3 == 0) {
      const absl::Status status =
          held.front().ReleaseAndWait(std::chrono::seconds(20));
      if (!status.ok()) return Describe(status);
    }
    held.pop_front();
  }
  // An answer by which the last release has been heard.
  if (auto status = client.connection.value().Status(); !status.ok()) {
    return Describe(status.status());
  }
  std::string text = absl::StrCat("ok ", acquired);
  for (Grant& grant : held) {
    absl::StrAppend(&text, " ", grant.id());
    client.grants.push_back({std::move(grant), nullptr});
  }
  return text;
}

std::string Status(Client& client, const Words&) {
  const auto status = client.connection.value().Status();
  return status.ok() ? absl::StrCat("ok ", status->sessions())
                     : Describe(status.status());
}

std::string Revoke(Client& client, const Words&) {
  v1::RevokeRequest request;
  request.set_all(true);
  const auto reply = client.connection.value().Revoke(request);
  return reply.ok() ? absl::StrCat("ok ", reply->revoked())
                    : Describe(reply.status());
}

std::string Reload(Client& client, const Words&) {
  const auto reply = client.connection.value().Reload();
  return reply.ok() ? "ok" : Describe(reply.status());
}

// Which of its grants' fds would survive an exec; none should.
std::string Inherited(Client& client, const Words&) {
  size_t fds = 0, inherited = 0;
  for (const Held& held : client.grants) {
    for (const Grant::Handle& handle : held.grant.handles()) {
      ++fds;
      inherited += (fcntl(handle.fd.get(), F_GETFD) & FD_CLOEXEC) == 0;
    }
  }
  return absl::StrCat("ok ", inherited, " of ", fds);
}

// many PATH N: so many more connections, each with one packet_sampler.
std::string Many(Client& client, const Words& words) {
  const size_t wanted = Number(words.at(1));
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  for (size_t i = 0; i < wanted; ++i) {
    auto connection = Connection::Connect({.path = words.at(0)});
    if (!connection.ok()) {
      return absl::StrCat(Describe(connection.status()), " at session ", i);
    }
    client.many.push_back(*std::move(connection));
  }
  for (Connection& connection : client.many) {
    auto grant = connection.Acquire(
        {.program = "packet_sampler", .interface = "packet_sampler/1"});
    if (!grant.ok()) {
      return absl::StrCat(Describe(grant.status()), " at grant ",
                          client.grants.size());
    }
    client.grants.push_back({*std::move(grant), nullptr});
  }
  return absl::StrCat("ok ", client.grants.size());
}

}  // namespace

void AddSessionCommands(Commands& commands) {
  commands["connect"] = Connect;
  commands["disconnect"] = [](Client& client, const Words&) {
    client.connection.reset();
    return std::string("ok");
  };
  commands["acquire"] = Acquire;
  commands["release"] = Release;
  commands["release-wait"] = ReleaseAndWait;
  commands["unmap"] = [](Client& client, const Words& words) {
    client.grants.at(Number(words.at(0))).samples.reset();
    return std::string("ok");
  };
  commands["ended"] = Ended;
  commands["event"] = NextEvent;
  commands["grants"] = CountGrants;
  commands["status"] = Status;
  commands["revoke-all"] = Revoke;
  commands["reload"] = Reload;
  commands["inherited"] = Inherited;
  commands["many"] = Many;
  commands["churn"] = Churn;
}

}  // namespace bpfgrant::test

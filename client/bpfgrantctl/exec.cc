// exec: starts a program that knows nothing of us with what its grants bring.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/exec_drop_in.h"
#include "client/bpfgrantctl/exec_options.h"
#include "client/bpfgrantctl/inheritance.h"
#include "client/bpfgrantctl/output.h"
#include "client/bpfgrantctl/parameter_text.h"
#include "policy/parameter.h"

namespace bpfgrant::ctl {
namespace {

// As env(1) and others have them: these are not the program's.
constexpr int kNotStarted = 126;
constexpr int kNoSuchProgram = 127;

class Starter {
 public:
  Starter(Connection& connection, const ExecOptions& options)
      : connection_(connection), options_(options) {}

  absl::Status TakeSockets();
  absl::Status Attach();
  absl::Status Acquire();
  // Returns only if it could not be started: the exit code.
  absl::StatusOr<int> Start(std::vector<std::string> command);

 private:
  struct Asked {
    Connection::AcquireOptions options;
    v1::DescribeReply description;
  };

  absl::StatusOr<Asked> Describe(const ExecOptions::Program& program);
  absl::Status AddValue(const ExecOptions::Value& value, Asked& asked) const;
  // Nothing happens if the program goes elsewhere than on `target`.
  absl::Status AttachToOne(const ExecOptions::Attachment& wanted, int socket,
                           v1::Target target);
  absl::Status AttachAll(v1::Target target);
  absl::Status Listen();
  absl::StatusOr<int> FindSocket(const std::string& name) const;
  bool IsShared(const std::string& socket);
  void AddHandles(const std::string& prefix, const Grant& grant, bool listed);

  Connection& connection_;
  const ExecOptions& options_;
  std::vector<NamedFd> sockets_;
  // They give themselves back, unless the program runs.
  std::vector<Grant> grants_;
  Inheritance inheritance_;
};

std::string WhyNot(bool tracing) {
  return tracing ? "serves the process that asked, and no longer once that "
                   "executes another program"
                 : "runs on an io_uring of the process that asked";
}

absl::StatusOr<Starter::Asked> Starter::Describe(
    const ExecOptions::Program& program) {
  auto description = connection_.Describe(program.name);
  if (!description.ok()) return description.status();
  for (const int delivery : description->detail().allowed_delivery()) {
    if (delivery == v1::DELIVERY_PROCESS || delivery == v1::DELIVERY_RING) {
      return UsageError(absl::StrCat("'", program.name,
                                     "' cannot be passed on: it ",
                                     WhyNot(delivery == v1::DELIVERY_PROCESS)));
    }
  }
  Asked asked;
  asked.options.program = program.name;
  asked.options.interface = program.interface.empty()
                                ? description->summary().interface()
                                : program.interface;
  asked.description = *std::move(description);
  for (const ExecOptions::Value& value : options_.values) {
    if (value.program != program.name) continue;
    if (absl::Status status = AddValue(value, asked); !status.ok()) {
      return status;
    }
  }
  return asked;
}

absl::Status Starter::AddValue(const ExecOptions::Value& value,
                               Asked& asked) const {
  const v1::Parameter* parameter =
      policy::FindParameter(asked.description.parameter(), value.parameter);
  if (parameter == nullptr) {
    return UsageError(absl::StrCat("'", value.program, "' has no parameter '",
                                   value.parameter, "'"));
  }
  if (parameter->has_file()) {
    const auto socket = FindSocket(value.value);
    if (!socket.ok()) return socket.status();
    asked.options.files.emplace_back(value.parameter, *socket);
    return absl::OkStatus();
  }
  auto parsed = ParseParameter(*parameter, value.value);
  if (!parsed.ok()) return parsed.status();
  asked.options.parameters.push_back(*std::move(parsed));
  return absl::OkStatus();
}

absl::StatusOr<int> Starter::FindSocket(const std::string& name) const {
  for (const NamedFd& socket : sockets_) {
    if (socket.name == name) return socket.fd.get();
  }
  return UsageError(absl::StrCat(
      "there is no socket '", name,
      "': --listen makes one, or the service manager passes it on"));
}

// Whether a reuseport program goes on it.
bool Starter::IsShared(const std::string& socket) {
  return std::any_of(
      options_.attachments.begin(), options_.attachments.end(),
      [&](const ExecOptions::Attachment& wanted) {
        if (wanted.socket != socket) return false;
        // Attach says what is wrong with it.
        const auto description = connection_.Describe(wanted.program.name);
        return description.ok() &&
               description->detail().target() == v1::TARGET_REUSEPORT;
      });
}

absl::Status Starter::TakeSockets() {
  sockets_ = TakeListenFds();
  for (const ExecOptions::Listener& wanted : options_.listeners) {
    auto socket = Bind(wanted.address, IsShared(wanted.name));
    if (!socket.ok()) return socket.status();
    sockets_.push_back({wanted.name, *std::move(socket)});
  }
  for (const NamedFd& socket : sockets_) {
    UniqueFd copy(fcntl(socket.fd.get(), F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) return absl::InternalError(std::strerror(errno));
    inheritance_.AddListed(socket.name, std::move(copy));
  }
  return absl::OkStatus();
}

void Starter::AddHandles(const std::string& prefix, const Grant& grant,
                         bool listed) {
  for (const Grant::Handle& handle : grant.handles()) {
    UniqueFd copy(fcntl(handle.fd.get(), F_DUPFD_CLOEXEC, 0));
    const std::string name =
        absl::StrCat(prefix, ".", handle.description.name());
    if (listed) {
      inheritance_.AddListed(name, std::move(copy));
    } else {
      inheritance_.AddNamed(name, std::move(copy));
    }
  }
}

absl::Status Starter::AttachToOne(const ExecOptions::Attachment& wanted,
                                  int socket, v1::Target target) {
  auto asked = Describe(wanted.program);
  if (!asked.ok()) return asked.status();
  const v1::Target its = asked->description.detail().target();
  if (its != v1::TARGET_SOCKET && its != v1::TARGET_REUSEPORT) {
    return UsageError(
        absl::StrCat("'", wanted.program.name, "' goes on no socket"));
  }
  if (its != target) return absl::OkStatus();
  const SocketHook hook = target == v1::TARGET_SOCKET ? SocketHook::kFilter
                                                      : SocketHook::kReuseport;
  auto grant = AttachTo(connection_, std::move(asked->options), socket, hook);
  if (!grant.ok()) return grant.status();
  // As the daemon does it: the program cannot take the filter off.
  const int yes = 1;
  if (hook == SocketHook::kFilter &&
      setsockopt(socket, SOL_SOCKET, SO_LOCK_FILTER, &yes, sizeof(yes)) < 0 &&
      grant->delivery() == v1::DELIVERY_PROGRAM) {
    return absl::InternalError(
        absl::StrCat("SO_LOCK_FILTER: ", std::strerror(errno)));
  }
  AddHandles(absl::StrCat(wanted.socket, ".", wanted.program.name), *grant,
             /*listed=*/false);
  grants_.push_back(*std::move(grant));
  return absl::OkStatus();
}

absl::Status Starter::AttachAll(v1::Target target) {
  for (const ExecOptions::Attachment& wanted : options_.attachments) {
    if (auto any = FindSocket(wanted.socket); !any.ok()) return any.status();
    // A unit's sockets may all have one name.
    for (const NamedFd& socket : sockets_) {
      if (socket.name != wanted.socket) continue;
      absl::Status status = AttachToOne(wanted, socket.fd.get(), target);
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
}

absl::Status Starter::Listen() {
  for (const NamedFd& socket : sockets_) {
    int type = 0, listens = 0;
    socklen_t size = sizeof(type);
    getsockopt(socket.fd.get(), SOL_SOCKET, SO_TYPE, &type, &size);
    getsockopt(socket.fd.get(), SOL_SOCKET, SO_ACCEPTCONN, &listens, &size);
    const bool is_ours = std::any_of(
        options_.listeners.begin(), options_.listeners.end(),
        [&](const auto& wanted) { return wanted.name == socket.name; });
    if (!is_ours || type != SOCK_STREAM || listens != 0) continue;
    if (listen(socket.fd.get(), SOMAXCONN) < 0) {
      return absl::InternalError(
          absl::StrCat(socket.name, ": ", std::strerror(errno)));
    }
  }
  return absl::OkStatus();
}

absl::Status Starter::Attach() {
  // A connection that comes before its filter would never have one; and a
  // parameter may want a socket that listens.
  if (auto status = AttachAll(v1::TARGET_SOCKET); !status.ok()) return status;
  if (auto status = Listen(); !status.ok()) return status;
  return AttachAll(v1::TARGET_REUSEPORT);
}

absl::Status Starter::Acquire() {
  for (const ExecOptions::Grant& wanted : options_.grants) {
    auto asked = Describe(wanted.program);
    if (!asked.ok()) return asked.status();
    auto grant = connection_.Acquire(asked->options);
    if (!grant.ok()) return grant.status();
    AddHandles(wanted.alias, *grant, /*listed=*/true);
    grants_.push_back(*std::move(grant));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> Starter::Start(std::vector<std::string> command) {
  for (const ExecOptions::Number& wanted : options_.numbers) {
    if (absl::Status status = inheritance_.Place(wanted.name, wanted.number);
        !status.ok()) {
      return UsageError(std::string(status.message()));
    }
  }
  if (absl::Status status = inheritance_.Settle(); !status.ok()) return status;
  for (std::string& word : command) word = inheritance_.Fill(word);
  // What is in our buffers would be lost.
  std::fflush(stdout);
  const int error = inheritance_.Execute(command, connection_.fd());
  Complain(absl::StrCat(command.front(), ": ", std::strerror(error)));
  return error == ENOENT ? kNoSuchProgram : kNotStarted;
}

absl::StatusOr<int> Exec(const Settings& settings, const ExecWords& words) {
  const auto options = ExecOptions::Parse(words);
  if (!options.ok()) return options.status();
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  Starter starter(*connection, *options);
  if (auto status = starter.TakeSockets(); !status.ok()) return status;
  if (auto status = starter.Attach(); !status.ok()) return status;
  if (auto status = starter.Acquire(); !status.ok()) return status;
  return starter.Start(words.command);
}

}  // namespace

void AddExec(CLI::App& app, Command& command) {
  struct Asked {
    ExecWords words;
    bool print_drop_in = false;
  };
  const auto asked = std::make_shared<Asked>();
  CLI::App* exec = AddVerb(
      app, command, "exec",
      "Executes COMMAND with the fds of its grants, which live as long as it",
      [asked](const Settings& settings) -> absl::StatusOr<int> {
        if (asked->print_drop_in) {
          std::printf("%s", DropInFor(asked->words).c_str());
          return kOk;
        }
        const auto done = Exec(settings, asked->words);
        if (done.ok()) return done;
        Report(settings, done.status());
        return kExecFailed;
      });
  ExecWords& words = asked->words;
  exec->add_option("--grant", words.grants,
                   "take a program; its fds follow in LISTEN_FDS")
      ->type_name("[ALIAS=]PROGRAM[/VERSION]")
      ->check(CheckText);
  exec->add_option("--listen", words.listeners,
                   "a socket at tcp:HOST:PORT, udp:HOST:PORT or unix:PATH")
      ->type_name("NAME=ADDRESS");
  exec->add_option("--attach", words.attachments,
                   "put a program on a socket of --listen's, or of the unit's")
      ->type_name("PROGRAM[/VERSION]=SOCKET")
      ->check(CheckText);
  exec->add_option("--set", words.values, "a parameter of a program")
      ->type_name("PROGRAM.PARAMETER=VALUE")
      ->check(CheckText);
  exec->add_option("--fd", words.numbers,
                   "an fd under that number, and not in LISTEN_FDS")
      ->type_name("NAME=NUMBER");
  exec->add_flag("--print-drop-in", asked->print_drop_in,
                 "only print a unit's drop-in that does this");
  for (CLI::Option* option : exec->get_options())
    option->allow_extra_args(false);
  exec->add_option("command", words.command,
                   "what to execute, behind \"--\"; {NAME} becomes an fd's "
                   "number")
      ->required();
  exec->positionals_at_end();
}

}  // namespace bpfgrant::ctl

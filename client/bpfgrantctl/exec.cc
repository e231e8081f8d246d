// exec: starts a program that knows nothing of us with what its grants bring.

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/parameter.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/exec_options.h"
#include "client/bpfgrantctl/inheritance.h"
#include "client/bpfgrantctl/output.h"
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
  absl::Status AttachToOne(const ExecOptions::Attachment& wanted, int socket);
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

absl::StatusOr<v1::ParameterValue> ParsePrefix(const std::string& name,
                                               const std::string& text) {
  const size_t slash = text.find('/');
  char address[16];
  uint32_t length = 0;
  const std::string host = text.substr(0, slash);
  const bool ipv4 = inet_pton(AF_INET, host.c_str(), address) == 1;
  if (slash == std::string::npos ||
      !absl::SimpleAtoi(text.substr(slash + 1), &length) ||
      (!ipv4 && inet_pton(AF_INET6, host.c_str(), address) != 1)) {
    return UsageError(absl::StrCat("'", text, "' is not ADDRESS/LENGTH"));
  }
  return PrefixParameter(name, std::string(address, ipv4 ? 4 : 16), length);
}

// The daemon says whether it is in range.
absl::StatusOr<v1::ParameterValue> ParseValue(const v1::Parameter& parameter,
                                              const std::string& text) {
  int64_t number = 0;
  switch (parameter.type_case()) {
    case v1::Parameter::kInteger:
      if (absl::SimpleAtoi(text, &number)) {
        return IntegerParameter(parameter.name(), number);
      }
      break;
    case v1::Parameter::kEnumeration:
      return ChoiceParameter(parameter.name(), text);
    case v1::Parameter::kBytes:
      if (text.size() % 2 == 0 &&
          std::all_of(text.begin(), text.end(),
                      [](unsigned char c) { return std::isxdigit(c) != 0; })) {
        return BytesParameter(parameter.name(), absl::HexStringToBytes(text));
      }
      break;
    case v1::Parameter::kPrefix:
      return ParsePrefix(parameter.name(), text);
    default:
      break;
  }
  return UsageError(absl::StrCat("'", text, "' is no value for '",
                                 parameter.name(), "', which is ",
                                 policy::RangeOf(parameter)));
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
  auto parsed = ParseValue(*parameter, value.value);
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
    auto socket = Listen(wanted.address, IsShared(wanted.name));
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
                                  int socket) {
  auto asked = Describe(wanted.program);
  if (!asked.ok()) return asked.status();
  const v1::Target target = asked->description.detail().target();
  if (target != v1::TARGET_SOCKET && target != v1::TARGET_REUSEPORT) {
    return UsageError(
        absl::StrCat("'", wanted.program.name, "' goes on no socket"));
  }
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

absl::Status Starter::Attach() {
  for (const ExecOptions::Attachment& wanted : options_.attachments) {
    if (auto any = FindSocket(wanted.socket); !any.ok()) return any.status();
    // A unit's sockets may all have one name.
    for (const NamedFd& socket : sockets_) {
      if (socket.name != wanted.socket) continue;
      absl::Status status = AttachToOne(wanted, socket.fd.get());
      if (!status.ok()) return status;
    }
  }
  return absl::OkStatus();
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

// A word as a unit file has it.
std::string Quote(const std::string& word) {
  const std::string escaped = absl::StrReplaceAll(
      absl::CEscape(word), {{"%", "%%"}, {"$", "$$"}, {"\\'", "'"}});
  const bool plain = !word.empty() && escaped == word &&
                     word.find_first_of(" ;\"'") == std::string::npos;
  return plain ? word : absl::StrCat("\"", escaped, "\"");
}

void PrintDropIn(const ExecWords& words) {
  std::string line = "/usr/bin/bpfgrantctl exec";
  const auto add = [&line](const char* option,
                           const std::vector<std::string>& values) {
    for (const std::string& value : values) {
      absl::StrAppend(&line, " ", option, " ", Quote(value));
    }
  };
  add("--listen", words.listeners);
  add("--attach", words.attachments);
  add("--grant", words.grants);
  add("--set", words.values);
  add("--fd", words.numbers);
  line += " --";
  for (const std::string& word : words.command) {
    absl::StrAppend(&line, " ", Quote(word));
  }
  std::printf(
      "[Unit]\nWants=bpfgrantd.socket\nAfter=bpfgrantd.socket\n\n"
      "[Service]\nExecStart=\nExecStart=%s\n",
      line.c_str());
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
          PrintDropIn(asked->words);
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

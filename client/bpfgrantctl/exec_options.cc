#include "client/bpfgrantctl/exec_options.h"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/bpfgrantctl/command.h"

namespace bpfgrant::ctl {
namespace {

// What stays free for stdin, stdout and stderr, and a bound on what is moved.
constexpr int kFirstNumber = 3;
constexpr int kLastNumber = 1023;

using Pair = std::pair<std::string, std::string>;

absl::StatusOr<Pair> Split(const std::string& word, char separator,
                           const std::string& form) {
  const size_t at = word.find(separator);
  if (at == 0 || at == std::string::npos || at + 1 == word.size()) {
    return UsageError(absl::StrCat("'", word, "' is not ", form));
  }
  return Pair(word.substr(0, at), word.substr(at + 1));
}

// Goes into LISTEN_FDNAMES, where ':' parts the names.
absl::Status CheckFdName(const std::string& name) {
  const bool fits =
      !name.empty() && name.size() <= 128 &&
      std::all_of(name.begin(), name.end(), [](char c) {
        return c > ' ' && c < 0x7f && c != ':' && c != '{' && c != '}';
      });
  if (fits) return absl::OkStatus();
  return UsageError(absl::StrCat("'", name, "' is no name for an fd"));
}

ExecOptions::Program ProgramOf(const std::string& word) {
  const size_t slash = word.find('/');
  if (slash == std::string::npos) return {word, ""};
  return {word.substr(0, slash), word};
}

absl::Status ParseGrants(const ExecWords& words, ExecOptions& options) {
  for (const std::string& word : words.grants) {
    const size_t equals = word.find('=');
    ExecOptions::Grant grant;
    grant.program =
        ProgramOf(equals == std::string::npos ? word : word.substr(equals + 1));
    grant.alias = equals == std::string::npos ? grant.program.name
                                              : word.substr(0, equals);
    if (auto status = CheckFdName(grant.alias); !status.ok()) return status;
    options.grants.push_back(std::move(grant));
  }
  for (const std::string& word : words.attachments) {
    auto pair = Split(word, '=', "PROGRAM=SOCKET");
    if (!pair.ok()) return pair.status();
    options.attachments.push_back({ProgramOf(pair->first), pair->second});
  }
  return absl::OkStatus();
}

absl::Status ParseNumbers(const ExecWords& words, ExecOptions& options) {
  std::set<int> taken;
  for (const std::string& word : words.numbers) {
    const size_t equals = word.rfind('=');
    int number = 0;
    if (equals == std::string::npos || equals == 0 ||
        !absl::SimpleAtoi(word.substr(equals + 1), &number) ||
        number < kFirstNumber || number > kLastNumber) {
      return UsageError(absl::StrCat("'", word, "' is not NAME=NUMBER, from ",
                                     kFirstNumber, " to ", kLastNumber));
    }
    if (!taken.insert(number).second) {
      return UsageError(absl::StrCat("fd ", number, " is wanted twice"));
    }
    options.numbers.push_back({word.substr(0, equals), number});
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> BindTo(const addrinfo& where, bool shared) {
  UniqueFd socket(::socket(where.ai_family, where.ai_socktype | SOCK_CLOEXEC,
                           where.ai_protocol));
  const int yes = 1;
  if (socket.valid()) {
    setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (shared) {
      setsockopt(socket.get(), SOL_SOCKET, SO_REUSEPORT, &yes, sizeof(yes));
    }
  }
  if (!socket.valid() ||
      bind(socket.get(), where.ai_addr, where.ai_addrlen) < 0) {
    return absl::InternalError(std::strerror(errno));
  }
  return socket;
}

absl::StatusOr<UniqueFd> BindToPath(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InternalError("the path is empty or too long");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  addrinfo where{};
  where.ai_family = AF_UNIX;
  where.ai_socktype = SOCK_STREAM;
  where.ai_addr = reinterpret_cast<sockaddr*>(&address);
  where.ai_addrlen = sizeof(address);
  return BindTo(where, false);
}

// "HOST:PORT", "[HOST]:PORT".
absl::StatusOr<UniqueFd> BindToHost(const std::string& text, int type,
                                    bool shared) {
  const size_t colon = text.rfind(':');
  const std::string port =
      colon == std::string::npos ? "" : text.substr(colon + 1);
  uint32_t number = 0;
  // The C library takes what is left of a number that is too large.
  if (!absl::SimpleAtoi(port, &number) || number > 65535) {
    return absl::InternalError("there is no such port");
  }
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  addrinfo hints{};
  hints.ai_socktype = type;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return absl::InternalError(gai_strerror(error));
  auto socket = BindTo(*found, shared);
  freeaddrinfo(found);
  return socket;
}

}  // namespace

absl::StatusOr<ExecOptions> ExecOptions::Parse(const ExecWords& words) {
  ExecOptions options;
  if (auto status = ParseGrants(words, options); !status.ok()) return status;
  if (auto status = ParseNumbers(words, options); !status.ok()) return status;
  std::set<std::string> names;
  for (const std::string& word : words.listeners) {
    auto pair = Split(word, '=', "NAME=ADDRESS");
    if (!pair.ok()) return pair.status();
    if (auto status = CheckFdName(pair->first); !status.ok()) return status;
    options.listeners.push_back({pair->first, pair->second});
    if (!names.insert(pair->first).second) {
      return UsageError(absl::StrCat("two are named '", pair->first, "'"));
    }
  }
  for (const ExecOptions::Grant& grant : options.grants) {
    if (!names.insert(grant.alias).second) {
      return UsageError(
          absl::StrCat("two are named '", grant.alias, "'; say ALIAS=PROGRAM"));
    }
  }
  for (const std::string& word : words.values) {
    const std::string form = "PROGRAM.PARAMETER=VALUE";
    auto pair = Split(word, '=', form);
    if (!pair.ok()) return pair.status();
    auto name = Split(pair->first, '.', form);
    if (!name.ok()) return name.status();
    options.values.push_back({name->first, name->second, pair->second});
  }
  return options;
}

absl::StatusOr<UniqueFd> Bind(const std::string& address, bool shared) {
  const size_t colon = address.find(':');
  const std::string kind = address.substr(0, colon);
  const std::string rest =
      colon == std::string::npos ? "" : address.substr(colon + 1);
  absl::StatusOr<UniqueFd> socket = UsageError(absl::StrCat(
      "'", address, "' is none of tcp:HOST:PORT, udp:HOST:PORT and unix:PATH"));
  if (kind == "tcp") socket = BindToHost(rest, SOCK_STREAM, shared);
  if (kind == "udp") socket = BindToHost(rest, SOCK_DGRAM, shared);
  if (kind == "unix") socket = BindToPath(rest);
  if (socket.ok() || absl::IsInvalidArgument(socket.status())) return socket;
  return absl::InternalError(
      absl::StrCat(address, ": ", std::string(socket.status().message())));
}

}  // namespace bpfgrant::ctl

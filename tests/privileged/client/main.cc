// nobody: the client, from its first statement to the loop that obeys.

#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/probe_privilege.h"
#include "tests/privileged/client/commands.h"

namespace bpfgrant::test {
namespace {

const Commands& AllCommands() {
  static const auto* const commands = [] {
    auto* all = new Commands;
    AddSessionCommands(*all);
    AddSocketCommands(*all);
    AddBpfCommands(*all);
    AddRawCommands(*all);
    AddProcessCommands(*all);
    AddRingCommands(*all);
    AddRequestCommands(*all);
    return all;
  }();
  return *commands;
}

std::string Obey(Client& client, const std::string& line) {
  Words words = absl::StrSplit(line, ' ', absl::SkipEmpty());
  if (words.empty()) return "failed: nothing was said";
  const auto command = AllCommands().find(words.front());
  if (command == AllCommands().end()) {
    return absl::StrCat("failed: no command '", words.front(), "'");
  }
  words.erase(words.begin());
  try {
    return command->second(client, words);
  } catch (const std::exception& exception) {
    return absl::StrCat("failed: ", exception.what());
  }
}

}  // namespace

void Serve(Client& client, std::FILE* in, std::FILE* out) {
  char line[4096];
  while (std::fgets(line, sizeof(line), in) != nullptr) {
    line[std::strcspn(line, "\n")] = '\0';
    std::fprintf(out, "%s\n", Obey(client, line).c_str());
    std::fflush(out);
  }
}

std::string Errno() { return absl::StrCat("error ", strerrorname_np(errno)); }

std::string Outcome(long result) { return result < 0 ? Errno() : "ok"; }

std::string Describe(const absl::Status& status) {
  const v1::Reason reason = ReasonOf(status);
  return reason == v1::REASON_UNSPECIFIED || reason == v1::REASON_INTERNAL
             ? absl::StrCat("failed: ", status.ToString())
             : absl::StrCat("refused ", ReasonName(reason));
}

size_t Number(const std::string& word) { return std::stoul(word); }

Grant& GrantAt(Client& client, const std::string& word) {
  return client.grants.at(Number(word)).grant;
}

int SocketAt(Client& client, const std::string& word) {
  return client.sockets.at(Number(word)).socket.get();
}

int HandleOf(Client& client, const std::string& grant,
             const std::string& handle) {
  const auto found = GrantAt(client, grant).Find(handle);
  if (!found.ok()) throw std::out_of_range("no handle " + handle);
  return (*found)->fd.get();
}

}  // namespace bpfgrant::test

int main(int argc, char** argv) {
  bpfgrant::test::AssertUnprivileged();
  std::signal(SIGPIPE, SIG_IGN);
  bpfgrant::test::Client client;
  if (argc == 3 && std::strcmp(argv[1], "ring") == 0) {
    // Executed anew by itself, with a ring kept open: see rings.cc.
    std::printf("%s\n",
                bpfgrant::test::EnterInherited(std::atoi(argv[2])).c_str());
    std::fflush(stdout);
  } else if (argc == 3 && std::strcmp(argv[1], "map") == 0) {
    // Executed anew by itself, with a session and a map: see requests.cc.
    std::printf("ok %s\n", argv[2]);
    std::fflush(stdout);
  } else if (argc == 2) {
    // Executed anew by itself under another name: see process.cc.
    std::printf("ok\n");
    std::fflush(stdout);
  } else if (argc == 3) {
    // Executed anew by itself, with a connection kept open: see process.cc.
    client.raw = bpfgrant::UniqueFd(std::atoi(argv[1]));
    client.raw_request = std::strtoull(argv[2], nullptr, 10);
    std::printf("ok\n");
    std::fflush(stdout);
  }
  bpfgrant::test::Serve(client, stdin, stdout);
  return 0;
}

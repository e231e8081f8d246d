// The unprivileged client of these tests: a process that is told line by line
// what to do, and answers each line with one of its own:
//
//   ok ...            what came out
//   error EPERM       what the kernel said
//   refused REASON    what the daemon said: a name of reason.proto
//   failed ...        anything else, with a sentence
//
// Grants and sockets are named by number, in the order in which they came.

#ifndef TESTS_PRIVILEGED_CLIENT_COMMANDS_H_
#define TESTS_PRIVILEGED_CLIENT_COMMANDS_H_

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/grant.h"
#include "client/bpfgrant/ring_buffer.h"
#include "proto/wire/unique_fd.h"
#include "tests/privileged/client/raw_ring.h"

namespace bpfgrant::test {

using Words = std::vector<std::string>;

// A grant, with its ring buffer mapped if it has one: what was mapped can be
// read when the grant is over.
struct Held {
  Grant grant;
  std::unique_ptr<RingBuffer> samples;
};

// One socket of any kind, or a UDP receiver and who sends to it.
struct Traffic {
  UniqueFd socket;
  UniqueFd sender;
};

struct Client {
  std::optional<Connection> connection;
  std::vector<Connection> many;
  std::vector<Held> grants;
  std::vector<Traffic> sockets;
  std::vector<std::unique_ptr<RawRing>> rings;
  // A connection without the library: its socket and its last request.
  UniqueFd raw;
  uint64_t raw_request = 0;
  // A child after fork(2), which takes commands itself.
  std::FILE* to_child = nullptr;
  std::FILE* from_child = nullptr;
};

// `words` are what follows the command's name; words[i] must be there.
using Command = std::function<std::string(Client&, const Words& words)>;
using Commands = std::map<std::string, Command>;

void AddSessionCommands(Commands& commands);  // session.cc
void AddSocketCommands(Commands& commands);   // sockets.cc
void AddBpfCommands(Commands& commands);      // bpf.cc
void AddRawCommands(Commands& commands);      // raw.cc
void AddProcessCommands(Commands& commands);  // process.cc
void AddRingCommands(Commands& commands);     // rings.cc
void AddRequestCommands(Commands& commands);  // requests.cc

// Enables and enters a ring that was open at execve(2).
std::string EnterInherited(int ring);

// Obeys what comes on `in` until its end.
void Serve(Client& client, std::FILE* in, std::FILE* out);

// "error ENAME" for errno, or "ok" for a call that did not fail.
std::string Errno();
std::string Outcome(long result);
// "refused ..." or "failed ...".
std::string Describe(const absl::Status& status);

size_t Number(const std::string& word);
// Those throw std::out_of_range, which Serve answers with "failed".
Grant& GrantAt(Client& client, const std::string& word);
int SocketAt(Client& client, const std::string& word);
// The fd of a grant's handle by its name, "program" among them.
int HandleOf(Client& client, const std::string& grant,
             const std::string& handle);

}  // namespace bpfgrant::test

#endif  // TESTS_PRIVILEGED_CLIENT_COMMANDS_H_

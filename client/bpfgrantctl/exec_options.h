// What `exec` is asked for, understood as far as that goes without a daemon.

#ifndef CLIENT_BPFGRANTCTL_EXEC_OPTIONS_H_
#define CLIENT_BPFGRANTCTL_EXEC_OPTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::ctl {

// As they were given.
struct ExecWords {
  std::vector<std::string> grants, attachments, listeners, numbers, values;
  std::vector<std::string> command;
};

struct ExecOptions {
  struct Program {
    std::string name;
    std::string interface;  // "": the catalog's
  };
  struct Grant {
    std::string alias;
    Program program;
  };
  struct Attachment {
    Program program;
    std::string socket;
  };
  struct Listener {
    std::string name, address;
  };
  struct Number {
    std::string name;
    int number;
  };
  struct Value {
    std::string program, parameter, value;
  };
  std::vector<Grant> grants;
  std::vector<Attachment> attachments;
  std::vector<Listener> listeners;
  std::vector<Number> numbers;
  std::vector<Value> values;

  // A usage error names the word that makes no sense.
  static absl::StatusOr<ExecOptions> Parse(const ExecWords& words);
};

// A socket that is bound to tcp:HOST:PORT, udp:HOST:PORT or unix:PATH, with
// SO_REUSEPORT if `shared`. Hosts are numeric; those of IPv6 in brackets.
// A usage error; or kInternal: the kernel refused.
absl::StatusOr<UniqueFd> Bind(const std::string& address, bool shared);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_EXEC_OPTIONS_H_

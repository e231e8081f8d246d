// What a program is started with by execve(2): which fds, under which numbers,
// and the environment that names them (sd_listen_fds(3)). Nothing else stays
// open but stdin, stdout and stderr.

#ifndef CLIENT_BPFGRANTCTL_INHERITANCE_H_
#define CLIENT_BPFGRANTCTL_INHERITANCE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::ctl {

struct NamedFd {
  std::string name;
  UniqueFd fd;
};

// The sockets that a service manager started this process with: none, unless
// LISTEN_PID names it. They are close-on-exec from then on. Once.
std::vector<NamedFd> TakeListenFds();

class Inheritance {
 public:
  // Fds, in this order from 3 on, that the program finds by LISTEN_FDS.
  void AddListed(std::string name, UniqueFd fd);
  // Fds that it gets only if somebody names them.
  void AddNamed(std::string name, UniqueFd fd);
  // That fd is `number`, and not listed. kNotFound: there is none of that name.
  absl::Status Place(const std::string& name, int number);
  // The number in place of each {NAME} of an fd that there is.
  std::string Fill(const std::string& word);

  // Numbers for all of them. kInvalidArgument: one that was asked for is
  // needed for those that are listed.
  absl::Status Settle();
  // Executes `command`, with `session` open beside the others for as long as
  // the program lives; its number is in BPFGRANT_SESSION_FD. Returns with the
  // errno only if that fails.
  int Execute(const std::vector<std::string>& command, int session);

 private:
  struct Entry {
    std::string name;
    UniqueFd fd;
    bool listed = false;
    bool wanted = false;
    int number = -1;
  };

  Entry* Find(const std::string& name);
  void Add(std::string name, UniqueFd fd, bool listed);
  bool IsTaken(int number) const;
  void SetEnvironment() const;

  std::vector<Entry> entries_;
};

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_INHERITANCE_H_

// Work in a child process, with a deadline: for what hostile input could do to
// the one that has more to lose.

#ifndef DAEMON_LOADER_CHILD_H_
#define DAEMON_LOADER_CHILD_H_

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bpfgrant::daemon {

struct ChildEnd {
  enum class Why { kItself, kTooLate, kSaidTooMuch };

  Why why = Why::kItself;  // for the other two it is killed
  int status = 0;          // as waitpid(2) has it
  std::string said;
};

// Runs `work` in a child, which ends with what it returns as its exit status,
// dumps no core and dies with this process. What it writes to `pipe` (SayAll)
// is kept, and may be `most` bytes.
//
// kInternal: there can be no child.
absl::StatusOr<ChildEnd> RunInChild(const std::function<int(int pipe)>& work,
                                    std::chrono::milliseconds deadline,
                                    size_t most);

// For the child. False: nobody listens.
bool SayAll(int pipe, std::string_view text);

// For a child: it ends with `parent`, from whom it was forked.
void LiveNoLongerThan(pid_t parent);

// For a child that others must not depend on: closes all fds but these, which
// it may need, above all the socket to the broker, whose end they wait for.
void CloseAllBut(std::vector<int> kept);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CHILD_H_

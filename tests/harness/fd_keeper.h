// A service manager's fd store, as far as sd_notify(3) describes it: keeps what
// a daemon hands over, for the next one, and passes on what else it says.
//
// What systemd does with it is shown where there is a systemd.

#ifndef TESTS_HARNESS_FD_KEEPER_H_
#define TESTS_HARNESS_FD_KEEPER_H_

#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {

class FdKeeper {
 public:
  using Fds = std::multimap<std::string, UniqueFd>;

  FdKeeper() = default;
  ~FdKeeper();

  // Binds to `path` and begins to read; what is no matter of the store's is
  // sent on to `next`. kInternal: with its errno.
  absl::Status Start(const std::filesystem::path& path,
                     const std::filesystem::path& next);

  // Copies of all that is kept, once what was said so far has been read.
  Fds Copy();
  // How many fds are kept whose name begins with `prefix`.
  size_t Count(const std::string& prefix);
  // Keeps that, too, as if a daemon had handed it over.
  void Put(const std::string& name, UniqueFd fd);
  // Keeps nothing any more of what has that name.
  void Drop(const std::string& prefix);
  // Reads nothing while it is paused.
  void Pause(bool paused);

 private:
  void Run(const std::stop_token& stop);
  void Add(const std::string& name, UniqueFd fd);
  bool ReadOne();
  // Until nothing is left to be read. With `mutex_` held.
  void ReadAll();

  UniqueFd socket_, next_;
  std::mutex mutex_;
  Fds fds_;
  bool paused_ = false;
  std::jthread reader_;
};

}  // namespace bpfgrant::test

#endif  // TESTS_HARNESS_FD_KEEPER_H_

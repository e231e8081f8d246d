// A loader that does as a test says: answers, refuses, keeps silent, lies, or
// dies. It hands out memfds and pipe ends where the real one hands out BPF fds.
//
// It runs as a source of the broker's own loop: all its methods belong to the
// loop's thread.

#ifndef TESTS_WIRE_SCRIPTED_LOADER_H_
#define TESTS_WIRE_SCRIPTED_LOADER_H_

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/broker/event_loop.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker_test {

class ScriptedLoader {
 public:
  enum class Mode {
    kAnswer,
    kRefuse,      // REASON_LOAD_FAILED, REASON_ATTACH_FAILED, or what fits
    kShort,       // REASON_BUSY, as if memory were short
    kSilent,      // keeps the requests; AnswerHeld answers them after all
    kFewerFds,    // a load's reply comes with one fd less than there should be
    kMoreFds,     // with one more
    kTooManyFds,  // with more than the broker takes of anybody
    kNonsense,    // bytes that are no LoaderReply
    kDie,         // closes the socket
  };

  // `witness` is what programs are duplicates of: its other end sees when the
  // last of them is closed, wherever it was.
  ScriptedLoader(broker::EventLoop& loop, UniqueFd socket, int witness);

  // What to do with loads, and with attachments.
  Mode load = Mode::kAnswer;
  Mode attach = Mode::kAnswer;
  Mode reload = Mode::kAnswer;
  // Map handles of each program; those not listed have none.
  std::map<std::string, int> handles;
  Mode look = Mode::kAnswer;
  // What a look finds left of an instance; "", as without it: nothing.
  std::function<std::string(const daemon::LookRequest::Instance&)> left;
  Mode executable = Mode::kAnswer;
  // What all clients execute.
  daemon::ExecutableReply executes;
  // What the next reload answers with.
  daemon::Snapshot next;

  // Every request there was, in order, but for looks.
  const std::vector<daemon::LoaderRequest>& requests() const {
    return requests_;
  }
  size_t CountLoads(const std::string& program) const;
  size_t held() const { return held_.size(); }
  // Every instance that a look was about, in order.
  const std::vector<daemon::LookRequest::Instance>& looked_at() const {
    return looked_at_;
  }
  // How many fds came with each attachment.
  const std::vector<size_t>& attach_fds() const { return attach_fds_; }

  // Answers the requests kept in silence, and from now on every one.
  void AnswerHeld();
  // Closes the socket.
  void Die();

 private:
  void OnReadable();
  Mode ModeOf(const daemon::LoaderRequest& request) const;
  void Serve(const daemon::LoaderRequest& request, Mode mode);
  daemon::LookReply Look(const daemon::LookRequest& request);
  std::vector<UniqueFd> MakeInstance(const std::string& program, Mode mode);
  void Reply(const daemon::LoaderReply& reply, std::vector<UniqueFd> fds);

  UniqueFd socket_;
  const int witness_;
  std::vector<daemon::LoaderRequest> requests_;
  std::vector<daemon::LoaderRequest> held_;
  std::vector<size_t> attach_fds_;
  std::vector<daemon::LookRequest::Instance> looked_at_;
  broker::EventLoop::Source source_;
};

// A memfd that holds `bytes`.
UniqueFd MemoryFile(const std::string& bytes);

}  // namespace bpfgrant::broker_test

#endif  // TESTS_WIRE_SCRIPTED_LOADER_H_

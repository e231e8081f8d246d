// What was denied lately, and what an observing rule would have denied.
//
// Bounded. Whoever has most makes room, so that a few users who ask a lot do
// not push out what others were denied.

#ifndef DAEMON_BROKER_DENIALS_H_
#define DAEMON_BROKER_DENIALS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "bpfgrant/v1/denials.pb.h"
#include "bpfgrant/v1/messages.pb.h"
#include "policy/policy.h"

namespace bpfgrant::broker {

class Denials {
 public:
  static constexpr size_t kMost = 512;
  static constexpr size_t kMostOfUser = 32;

  // Enters it, or counts it if the same is there. Returns whether it is new.
  bool Add(const policy::Subject& subject, const std::string& program,
           const v1::Verdict& verdict, int64_t now_unix_ms);

  // Calls `visit` for each behind `after`, the oldest first, until it returns
  // false.
  void ForEach(uint64_t after,
               absl::FunctionRef<bool(const v1::Denial&)> visit) const;
  size_t size() const { return denials_.size(); }

 private:
  // For one of that user's: of its own, or of whoever has most.
  void MakeRoom(uid_t uid);
  // Of the users for whom `of` holds; there must be one.
  void RemoveOldest(absl::FunctionRef<bool(uid_t)> of);
  void Remove(uint64_t id);

  absl::btree_map<uint64_t, v1::Denial> denials_;
  absl::flat_hash_map<std::string, uint64_t> by_key_;
  absl::flat_hash_map<uid_t, size_t> of_user_;
  uint64_t next_ = 1;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_DENIALS_H_

// For which values of parameters an instance is kept ready: those that a user
// asked for of late, a few for each.

#ifndef DAEMON_BROKER_KEPT_VALUES_H_
#define DAEMON_BROKER_KEPT_VALUES_H_

#include <sys/types.h>

#include <list>
#include <string>
#include <vector>

namespace bpfgrant::broker {

class KeptValues {
 public:
  // Remembers that `uid` asked for `key`. Returns those that make room for it:
  // the user's own that were not asked for for longest, and somebody's only if
  // too many are kept of all.
  std::vector<std::string> Touch(uid_t uid, const std::string& key);
  void Forget(const std::string& key);

 private:
  struct Kept {
    uid_t uid;
    std::string key;
  };
  // The oldest of them; `uid` limits it to one user's.
  std::string TakeOldest(const uid_t* uid);

  std::list<Kept> kept_;  // the latest at the end
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_KEPT_VALUES_H_

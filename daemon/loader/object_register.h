// What was loaded: by its gate, which objects of the kernel's an instance
// consists of, for as long as the broker may ask what is left of it.
//
// It must not keep any of them alive: it knows numbers only.

#ifndef DAEMON_LOADER_OBJECT_REGISTER_H_
#define DAEMON_LOADER_OBJECT_REGISTER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/loader/census.h"
#include "daemon/loader/instance.h"

namespace bpfgrant::daemon {

class ObjectRegister {
 public:
  // Slot and nonce. A slot comes back, the pair does not.
  using Gate = std::pair<uint32_t, uint64_t>;

  // `program` is its name in the catalog.
  void Enter(Gate gate, const std::string& program, ObjectIds own,
             ObjectIds session_maps);
  void EnterSessionMaps(Gate gate, const std::string& program, ObjectIds maps);

  // Compares with what exists, and forgets that of which nothing does. Of a
  // gate that nobody loaded anything behind, nothing is left.
  LookReply Look(const LookRequest& request, const Existing& existing);

  // Calls `visit` for each instance that is not forgotten yet, by gate.
  void ForEach(absl::FunctionRef<void(Gate gate, const std::string& program,
                                      const ObjectIds& own)>
                   visit) const;

  size_t size() const { return own_.size() + session_maps_.size(); }

 private:
  struct Objects {
    std::string program;
    ObjectIds ids;
  };

  std::map<Gate, Objects> own_;
  std::map<Gate, Objects> session_maps_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_OBJECT_REGISTER_H_

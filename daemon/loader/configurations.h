// Parameters that go into maps: written once into those of an instance, between
// its load and the moment in which a client has it.

#ifndef DAEMON_LOADER_CONFIGURATIONS_H_
#define DAEMON_LOADER_CONFIGURATIONS_H_

#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/object_register.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

class Configurations {
 public:
  explicit Configurations(const Mitigations& mitigations)
      : mitigations_(mitigations) {}

  // Writes the defaults into the maps of the instance that was loaded for
  // `gate`, in the order of the manifest's parameters that are entries, and
  // keeps them; nothing if there are none. kInternal: the kernel refused.
  absl::Status Keep(const ObjectRegister::Gate& gate,
                    std::shared_ptr<const Program> program,
                    std::vector<UniqueFd> maps);
  // Closes them.
  void Forget(const ObjectRegister::Gate& gate);

  // Writes the values, the defaults being there, and closes the maps, whatever
  // comes of it. `fds` are what the values name.
  //
  // REASON_PARAMETER_*: a value is none of the manifest's range; an fd is not
  // of its kind, or the kernel does not take it. REASON_INVALID_ARGUMENT: there
  // is no such instance any more, or fds that no value names.
  absl::Status Configure(const ConfigureRequest& request,
                         const std::vector<UniqueFd>& fds);

 private:
  struct Kept {
    std::shared_ptr<const Program> program;
    std::vector<UniqueFd> maps;
  };

  absl::Status Write(const Kept& kept, const v1::ParameterValue& value,
                     const std::vector<UniqueFd>& fds) const;

  const Mitigations mitigations_;
  std::map<ObjectRegister::Gate, Kept> kept_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CONFIGURATIONS_H_

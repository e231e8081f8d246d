// What the administrator lets any program of the catalog be, whatever its
// manifest approves: the limits of admission.proto as they are in force, each
// with the place that says so. What is built in is in admission_limits.cc, and
// explained one by one in bpfgrant-admission(5).
//
// It must not look at objects: object_uses.h does.

#ifndef DAEMON_LOADER_ADMISSION_LIMITS_H_
#define DAEMON_LOADER_ADMISSION_LIMITS_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/admission.pb.h"
#include "policy/policy.h"
#include "proto/text/text_file.h"

namespace bpfgrant::daemon {

// What a program amounts to, or several.
struct Amounts {
  uint64_t instructions = 0;
  uint64_t object_bytes = 0;
  uint64_t map_bytes = 0;  // of one instance
  uint64_t maps = 0;
  uint64_t entries = 0;  // of its maps together

  Amounts& operator+=(const Amounts& other);
};

class AdmissionLimits {
 public:
  // What is built in.
  AdmissionLimits();
  // What allows everything.
  static AdmissionLimits None();

  // Overrides with the fields of `bytes`, the file `file`; changes nothing if
  // there is anything wrong with them: REASON_FILE_INVALID, with the place.
  absl::Status Override(const std::string& file, std::string_view bytes);

  // Whether all of `names` are allowed by `list`, a field of admission.proto.
  // REASON_ADMISSION_LIMIT, naming the one that is not, the limit and its
  // place.
  absl::Status CheckAll(std::string_view list,
                        const std::set<std::string>& names) const;
  bool Allows(std::string_view list, const std::string& name) const;
  // The same of what the `group` "program" or "total" amounts to.
  absl::Status CheckAmounts(std::string_view group,
                            const Amounts& amounts) const;

  // Whether the rules trust nobody whom the limits do not allow to be trusted.
  absl::Status CheckTrust(absl::Span<const CompiledRule> rules,
                          const policy::NameResolver& resolver) const;

  // All of them, for people.
  std::vector<v1::LimitInForce> Describe() const;

 private:
  static std::string PlaceOf(const TextFile& text, Place place);
  absl::Status SetList(const TextFile& text, const v1::AdmissionLimits& message,
                       const google::protobuf::FieldDescriptor& field);
  absl::Status SetSizes(const TextFile& text,
                        const v1::AdmissionLimits& message,
                        const google::protobuf::FieldDescriptor& field);

  struct List {
    bool any = false;
    std::set<std::string> names;
    std::string place;
  };
  struct Size {
    uint64_t most = 0;
    std::string place;
  };

  std::map<std::string, List, std::less<>> lists_;
  std::map<std::string, Size, std::less<>> sizes_;  // "program.maps"
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ADMISSION_LIMITS_H_

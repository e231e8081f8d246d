// A program's parameters in its object: the constants and map entries that
// their values go into.

#ifndef DAEMON_LOADER_PARAMETER_OBJECT_H_
#define DAEMON_LOADER_PARAMETER_OBJECT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/parameter.pb.h"
#include "daemon/loader/manifest.h"

struct bpf_object;

namespace bpfgrant::daemon {

// The section of the constants (bpfgrant/parameter.bpf.h).
inline constexpr char kParameterSection[] = ".rodata.parameter";

// Whether the object has each constant and each entry, with room for every
// value of the range. REASON_OBJECT_MISMATCH, with the manifest's place.
absl::Status CheckParameterPlaces(const bpf_object* object,
                                  const Manifest& manifest);

// Sets the constants before a load: `values` of those given, the defaults of
// all others. REASON_PARAMETER_*, REASON_INVALID_ARGUMENT.
absl::Status SetParameters(const bpf_object* object,
                           const v1::Manifest& manifest,
                           absl::Span<const v1::ParameterValue> values,
                           bool ranges);

// A value as it is stored in `size` bytes; empty if there is no room for it.
std::string Stored(const v1::Parameter& parameter,
                   const v1::ParameterValue& value, size_t size);

// The bytes that an entry of that parameter takes.
size_t SizeOfEntry(const v1::Parameter& parameter);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_PARAMETER_OBJECT_H_

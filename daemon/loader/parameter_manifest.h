// What a manifest says of a program's parameters.
//
// It must not look at objects: parameter_object.h does.

#ifndef DAEMON_LOADER_PARAMETER_MANIFEST_H_
#define DAEMON_LOADER_PARAMETER_MANIFEST_H_

#include <string>

#include "absl/status/status.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "proto/text/text_file.h"

namespace bpfgrant::daemon {

// What is wrong with them by themselves, if anything: REASON_FILE_INVALID, with
// the place.
absl::Status CheckParameters(const TextFile& text,
                             const v1::Manifest& manifest);

// Whether no instance can be loaded before a client has chosen.
bool NeedsChoice(const v1::Manifest& manifest);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_PARAMETER_MANIFEST_H_

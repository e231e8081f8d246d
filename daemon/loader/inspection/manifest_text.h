// A manifest as text, field by field, with remarks for whoever has to decide.

#ifndef DAEMON_LOADER_INSPECTION_MANIFEST_TEXT_H_
#define DAEMON_LOADER_INSPECTION_MANIFEST_TEXT_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "bpfgrant/v1/manifest.pb.h"

namespace bpfgrant::daemon {

// What stands for a value that a human has to give. No manifest with it is
// valid.
inline constexpr char kDecide[] = "DECIDE";

// What is written beside a field of the manifest, or an element of one.
struct Remarks {
  std::vector<std::string> before;  // comments, each a line
  std::vector<std::string> inside;  // lines of a message, behind its own
};
// By the field's name and the element's index; 0 of what is not repeated.
using AllRemarks = std::map<std::pair<std::string, int>, Remarks>;

std::string WriteManifest(const v1::Manifest& manifest,
                          const AllRemarks& remarks);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_MANIFEST_TEXT_H_

// What changed between two texts, line by line.

#ifndef DAEMON_LOADER_INSPECTION_LINE_DIFF_H_
#define DAEMON_LOADER_INSPECTION_LINE_DIFF_H_

#include <string>
#include <string_view>

namespace bpfgrant::daemon {

// All lines of both, each with "-", "+" or " " in front; "" if they are equal.
// Of texts that differ in very many lines all old ones come first.
std::string DiffLines(std::string_view before, std::string_view after);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_LINE_DIFF_H_

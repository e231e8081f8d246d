#include "client/bpfgrantctl/exec_drop_in.h"

#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace bpfgrant::ctl {
namespace {

// A word as a unit file has it.
std::string Quote(const std::string& word) {
  const std::string escaped = absl::StrReplaceAll(
      absl::CEscape(word), {{"%", "%%"}, {"$", "$$"}, {"\\'", "'"}});
  const bool plain = !word.empty() && escaped == word &&
                     word.find_first_of(" ;\"'") == std::string::npos;
  return plain ? word : absl::StrCat("\"", escaped, "\"");
}

}  // namespace

std::string DropInFor(const ExecWords& words) {
  std::string line = "/usr/bin/bpfgrantctl exec";
  const auto add = [&line](const char* option,
                           const std::vector<std::string>& values) {
    for (const std::string& value : values) {
      absl::StrAppend(&line, " ", option, " ", Quote(value));
    }
  };
  add("--listen", words.listeners);
  add("--attach", words.attachments);
  add("--grant", words.grants);
  add("--set", words.values);
  add("--fd", words.numbers);
  line += " --";
  for (const std::string& word : words.command) {
    absl::StrAppend(&line, " ", Quote(word));
  }
  return absl::StrCat(
      "[Unit]\nWants=bpfgrantd.socket\nAfter=bpfgrantd.socket\n\n"
      "[Service]\nExecStart=\nExecStart=",
      line, "\n");
}

}  // namespace bpfgrant::ctl

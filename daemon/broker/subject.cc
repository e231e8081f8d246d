#include "daemon/broker/subject.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "policy/cgroup.h"

namespace bpfgrant::broker {
namespace {

// Messages hold UTF-8 only; what is plain stays as rules spell it.
std::string Plain(const std::string& bytes) {
  const bool plain = std::all_of(bytes.begin(), bytes.end(), [](char c) {
    return absl::ascii_isprint(static_cast<unsigned char>(c));
  });
  return plain ? bytes : absl::CHexEscape(bytes);
}

std::optional<std::string> IfSaid(const std::string& text) {
  return text.empty() ? std::optional<std::string>() : text;
}

}  // namespace

v1::Subject ToMessage(const policy::Subject& subject) {
  v1::Subject message;
  message.set_uid(subject.uid);
  message.set_gid(subject.gid);
  message.mutable_group()->Add(subject.groups.begin(), subject.groups.end());
  if (subject.location.has_value()) {
    message.set_cgroup(Plain(subject.location->cgroup));
  }
  message.set_label(Plain(subject.label.value_or("")));
  const policy::ExecutableFacts& executable = subject.executable;
  message.set_executable(Plain(executable.path.value_or("")));
  message.set_sha256(executable.sha256.value_or(""));
  message.set_fsverity(executable.fsverity.value_or(""));
  return message;
}

policy::Subject FromMessage(const v1::Subject& message) {
  policy::Subject subject;
  subject.uid = message.uid();
  subject.gid = message.gid();
  subject.groups = {message.group().begin(), message.group().end()};
  subject.location = policy::Locate(message.cgroup());
  subject.label = message.label();
  subject.executable.path = IfSaid(message.executable());
  subject.executable.sha256 = IfSaid(message.sha256());
  subject.executable.fsverity = IfSaid(message.fsverity());
  return subject;
}

}  // namespace bpfgrant::broker

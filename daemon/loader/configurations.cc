#include "daemon/loader/configurations.h"

#include <bpf/bpf.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/parameter_object.h"
#include "policy/parameter.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

int OptionOf(int socket, int option) {
  int value = -1;
  socklen_t length = sizeof(value);
  return getsockopt(socket, SOL_SOCKET, option, &value, &length) == 0 ? value
                                                                      : -1;
}

bool IsOfKind(int fd, v1::Parameter::FileKind kind) {
  const int domain = OptionOf(fd, SO_DOMAIN);
  if (domain != AF_INET && domain != AF_INET6) return false;
  switch (kind) {
    case v1::Parameter::TCP_LISTENER:
      return OptionOf(fd, SO_PROTOCOL) == IPPROTO_TCP &&
             OptionOf(fd, SO_ACCEPTCONN) == 1;
    case v1::Parameter::UDP_SOCKET:
      return OptionOf(fd, SO_PROTOCOL) == IPPROTO_UDP;
    default:
      return false;
  }
}

absl::Status PutFd(const v1::Parameter& parameter, int map, int fd,
                   bool judged) {
  if (judged && !IsOfKind(fd, parameter.file().kind())) {
    return Refuse(v1::REASON_PARAMETER_RANGE,
                  absl::StrCat("parameter '", parameter.name(), "' is ",
                               policy::RangeOf(parameter)));
  }
  const uint32_t index = parameter.entry().index();
  const auto socket = static_cast<uint64_t>(fd);
  // The kernel looks once more: it may have been closed or shut meanwhile.
  if (bpf_map_update_elem(map, &index, &socket, BPF_ANY) == 0) {
    return absl::OkStatus();
  }
  return Refuse(
      v1::REASON_PARAMETER_RANGE,
      absl::StrCat("parameter '", parameter.name(),
                   "': the kernel does not put that socket into a map (",
                   std::strerror(errno),
                   "): it must be bound or listen, with SO_REUSEPORT, and be "
                   "in no other such map"));
}

absl::Status PutBytes(const v1::Parameter& parameter,
                      const v1::ParameterValue& value, int map) {
  bpf_map_info info{};
  uint32_t size = sizeof(info);
  if (bpf_map_get_info_by_fd(map, &info, &size) < 0) {
    return absl::InternalError(
        absl::StrCat("asking about a map: ", std::strerror(errno)));
  }
  const uint32_t index = parameter.entry().index();
  const std::string bytes = Stored(parameter, value, SizeOfEntry(parameter));
  std::string whole(info.value_size, '\0');
  if (bytes.empty() ||
      parameter.entry().offset() + bytes.size() > whole.size()) {
    return Refuse(v1::REASON_PARAMETER_RANGE,
                  absl::StrCat("parameter '", parameter.name(), "' is ",
                               policy::RangeOf(parameter)));
  }
  if (bpf_map_lookup_elem(map, &index, whole.data()) < 0) {
    return absl::InternalError(
        absl::StrCat("reading a map: ", std::strerror(errno)));
  }
  whole.replace(parameter.entry().offset(), bytes.size(), bytes);
  if (bpf_map_update_elem(map, &index, whole.data(), BPF_EXIST) < 0) {
    return absl::InternalError(
        absl::StrCat("writing a map: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Configurations::Keep(const ObjectRegister::Gate& gate,
                                  std::shared_ptr<const Program> program,
                                  std::vector<UniqueFd> maps) {
  if (maps.empty()) return absl::OkStatus();
  Kept kept{std::move(program), std::move(maps)};
  for (const v1::Parameter& parameter :
       kept.program->manifest->message().parameter()) {
    if (!parameter.has_entry() || !parameter.has_default_()) continue;
    v1::ParameterValue value = parameter.default_();
    value.set_name(parameter.name());
    if (auto status = Write(kept, value, {}); !status.ok()) return status;
  }
  kept_[gate] = std::move(kept);
  return absl::OkStatus();
}

void Configurations::Forget(const ObjectRegister::Gate& gate) {
  kept_.erase(gate);
}

absl::Status Configurations::Configure(const ConfigureRequest& request,
                                       const std::vector<UniqueFd>& fds) {
  auto node = kept_.extract({request.gate_slot(), request.gate_nonce()});
  if (node.empty()) {
    return Refuse(v1::REASON_INVALID_ARGUMENT,
                  "there is no instance that waits for parameters");
  }
  const Kept& kept = node.mapped();
  if (fds.size() > kMaxFdsFromClient) {
    return Refuse(v1::REASON_UNEXPECTED_FDS, "more fds than parameters take");
  }
  policy::Parameters entries;
  for (const v1::Parameter& parameter :
       kept.program->manifest->message().parameter()) {
    if (parameter.has_entry()) *entries.Add() = parameter;
  }
  const auto settled = policy::Settle(entries, request.parameter(),
                                      mitigations_.parameter_ranges);
  if (!settled.ok()) return settled.status();
  for (const v1::ParameterValue& value : *settled) {
    if (auto status = Write(kept, value, fds); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Configurations::Write(const Kept& kept,
                                   const v1::ParameterValue& value,
                                   const std::vector<UniqueFd>& fds) const {
  auto map = kept.maps.begin();
  for (const v1::Parameter& parameter :
       kept.program->manifest->message().parameter()) {
    if (!parameter.has_entry()) continue;
    const int fd = (map++)->get();
    if (parameter.name() != value.name()) continue;
    if (!parameter.has_file()) return PutBytes(parameter, value, fd);
    if (value.fd() >= fds.size()) {
      return Refuse(v1::REASON_INVALID_ARGUMENT, "there is no such fd");
    }
    return PutFd(parameter, fd, fds[value.fd()].get(),
                 mitigations_.parameter_files);
  }
  return absl::OkStatus();
}

}  // namespace bpfgrant::daemon

#include "daemon/loader/iterator.h"

#include <bpf/libbpf.h>

#include <string_view>

namespace bpfgrant::daemon {

absl::StatusOr<UniqueFd> AttachIterator(const bpf_object* object,
                                        const char* name,
                                        const LibbpfLog& log) {
  const bpf_program* program = bpf_object__find_program_by_name(object, name);
  bpf_link* link =
      program == nullptr ? nullptr : bpf_program__attach_iter(program, nullptr);
  if (link == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat(name, ": ", std::strerror(errno), "; ", log.LastLine()));
  }
  UniqueFd fd(fcntl(bpf_link__fd(link), F_DUPFD_CLOEXEC, 0));
  bpf_link__destroy(link);
  if (!fd.valid()) return absl::InternalError(std::strerror(errno));
  return fd;
}

}  // namespace bpfgrant::daemon

#include "client/examples/kernel_ids.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace bpfgrant::example {
namespace {

template <typename Info>
bool GetInfo(int fd, Info& info) {
  bpf_attr attributes{};
  attributes.info.bpf_fd = static_cast<uint32_t>(fd);
  attributes.info.info_len = sizeof(info);
  attributes.info.info = reinterpret_cast<uintptr_t>(&info);
  return syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attributes,
                 sizeof(attributes)) == 0;
}

}  // namespace

std::string KernelIds(const Grant& grant) {
  std::string ids;
  for (const Grant::Handle& handle : grant.handles()) {
    if (handle.description.kind() == v1::HANDLE_KIND_PROGRAM) {
      bpf_prog_info info{};
      if (GetInfo(handle.fd.get(), info)) {
        absl::StrAppend(&ids, " program=", info.id);
      }
      continue;
    }
    bpf_map_info info{};
    if (GetInfo(handle.fd.get(), info)) {
      absl::StrAppend(&ids, " map=", info.id);
    }
  }
  return ids;
}

}  // namespace bpfgrant::example

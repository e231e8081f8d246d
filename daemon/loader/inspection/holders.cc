#include "daemon/loader/inspection/holders.h"

#include <linux/bpf.h>

#include "absl/strings/str_cat.h"

namespace bpfgrant::daemon {
namespace {

// With full rights, which is what a map's first fd has.
std::string WhatReachesEntries(uint32_t type) {
  switch (type) {
    case BPF_MAP_TYPE_RINGBUF:
      return "take every event out of it, for all readers";
    case BPF_MAP_TYPE_USER_RINGBUF:
      return "send the program messages, of any content";
    case BPF_MAP_TYPE_PROG_ARRAY:
      return "put programs of its own holding in, which run in this one's "
             "place";
    case BPF_MAP_TYPE_REUSEPORT_SOCKARRAY:
      return "put its sockets in and take any out";
    case BPF_MAP_TYPE_SOCKMAP:
    case BPF_MAP_TYPE_SOCKHASH:
      return "put its sockets in, under the program, and take any out";
    case BPF_MAP_TYPE_ARRAY_OF_MAPS:
    case BPF_MAP_TYPE_HASH_OF_MAPS:
      return "put maps of its own holding in, and take any out";
    case BPF_MAP_TYPE_PERF_EVENT_ARRAY:
      return "put perf events in, and take any out";
    case BPF_MAP_TYPE_DEVMAP:
    case BPF_MAP_TYPE_DEVMAP_HASH:
    case BPF_MAP_TYPE_CPUMAP:
    case BPF_MAP_TYPE_XSKMAP:
      return "say where packets go";
    case BPF_MAP_TYPE_ARRAY:
    case BPF_MAP_TYPE_PERCPU_ARRAY:
      return "read and write every entry";
    default:
      return "read, write and delete every entry";
  }
}

}  // namespace

std::string WhatHolderOfProgramCanDo(uint32_t type) {
  std::string_view use;
  switch (type) {
    case BPF_PROG_TYPE_SOCKET_FILTER:
      use =
          "put it on its own sockets and tun devices; run it on made-up "
          "packets for as long as it likes (BPF_PROG_TEST_RUN)";
      break;
    case BPF_PROG_TYPE_SK_REUSEPORT:
      use = "put it on its own sockets; it cannot be run on made-up packets";
      break;
    case BPF_PROG_TYPE_SYSCALL:
      use = "run it (BPF_PROG_TEST_RUN), with the rights of whoever loaded it";
      break;
    case BPF_PROG_TYPE_SCHED_CLS:
    case BPF_PROG_TYPE_SCHED_ACT:
    case BPF_PROG_TYPE_XDP:
    case BPF_PROG_TYPE_LWT_IN:
    case BPF_PROG_TYPE_LWT_OUT:
    case BPF_PROG_TYPE_LWT_XMIT:
    case BPF_PROG_TYPE_CGROUP_SKB:
    case BPF_PROG_TYPE_FLOW_DISSECTOR:
      use =
          "run it on made-up packets for as long as it likes "
          "(BPF_PROG_TEST_RUN); to attach it takes privilege";
      break;
    default:
      use = "attach it only with privilege";
  }
  return absl::StrCat(std::string(use),
                      "; keep it, pin it, and keep maps alive with it");
}

std::string WhatHolderOfMapCanDo(uint32_t type, uint32_t flags) {
  std::string text = WhatReachesEntries(type);
  if ((flags & BPF_F_MMAPABLE) != 0) {
    absl::StrAppend(&text, ", by mmap(2) too");
  }
  return absl::StrCat(text,
                      "; freeze it for everybody's system calls; keep it and "
                      "pin it");
}

}  // namespace bpfgrant::daemon

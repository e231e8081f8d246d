// The kernel's numbers for what a grant's fds stand for, as any holder of an fd
// may ask (BPF_OBJ_GET_INFO_BY_FD, bpf(2)).

#ifndef CLIENT_EXAMPLES_KERNEL_IDS_H_
#define CLIENT_EXAMPLES_KERNEL_IDS_H_

#include <string>

#include "client/bpfgrant/grant.h"

namespace bpfgrant::example {

// "program=12 map=34 map=35"; what cannot be asked is left out.
std::string KernelIds(const Grant& grant);

}  // namespace bpfgrant::example

#endif  // CLIENT_EXAMPLES_KERNEL_IDS_H_

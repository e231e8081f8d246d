// How check and verify tell what a kernel takes.

#ifndef CLIENT_BPFGRANTCTL_CHECK_H_
#define CLIENT_BPFGRANTCTL_CHECK_H_

#include <cstdint>

#include "bpfgrant/v1/check.pb.h"

namespace bpfgrant::ctl {

void PrintCheck(const v1::CheckReply& reply);

// Programs with a variant that is chosen.
uint64_t CountUsable(const v1::CheckReply& reply);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_CHECK_H_

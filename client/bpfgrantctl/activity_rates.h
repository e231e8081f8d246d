// What programs and grants did between two looks at them.

#ifndef CLIENT_BPFGRANTCTL_ACTIVITY_RATES_H_
#define CLIENT_BPFGRANTCTL_ACTIVITY_RATES_H_

#include "bpfgrant/v1/metrics.pb.h"

namespace bpfgrant::ctl {

// The busiest first. What is not in `before` began after it; what is not in
// `after` has ended and is left out.
v1::ActivityRates RatesBetween(const v1::ActivityReply& before,
                               const v1::ActivityReply& after);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_ACTIVITY_RATES_H_

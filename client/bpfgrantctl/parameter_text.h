// Values of parameters as people write them.

#ifndef CLIENT_BPFGRANTCTL_PARAMETER_TEXT_H_
#define CLIENT_BPFGRANTCTL_PARAMETER_TEXT_H_

#include <string>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/parameter.pb.h"

namespace bpfgrant::ctl {

// A number, a choice, bytes in hexadecimal, ADDRESS/LENGTH. Whether it is in
// range the daemon says; it must be no fd's. A usage error.
absl::StatusOr<v1::ParameterValue> ParseParameter(
    const v1::Parameter& parameter, const std::string& text);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_PARAMETER_TEXT_H_

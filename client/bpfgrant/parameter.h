// Values for a program's parameters, as Connection::AcquireOptions takes them:
//
//   connection->Acquire({.program = "packet_sampler",
//                        .interface = PACKET_SAMPLER_INTERFACE,
//                        .parameters = {IntegerParameter("most_bytes", 16)}});
//
// Which there are, and what they may be, the generated header says, and
// `bpfgrantctl describe`. What is refused is told with its name and range:
// REASON_PARAMETER_UNKNOWN, _MISSING, _RANGE; _NARROWED: the rule allows less.

#ifndef BPFGRANT_CLIENT_PARAMETER_H_
#define BPFGRANT_CLIENT_PARAMETER_H_

#include <cstdint>
#include <string>

#include "bpfgrant/v1/parameter.pb.h"

namespace bpfgrant {

v1::ParameterValue IntegerParameter(std::string name, int64_t value);
v1::ParameterValue ChoiceParameter(std::string name, std::string choice);
v1::ParameterValue BytesParameter(std::string name, std::string bytes);
// `address` has 4 or 16 bytes, in network order; beyond the first `length` bits
// all are 0.
v1::ParameterValue PrefixParameter(std::string name, std::string address,
                                   uint32_t length);

}  // namespace bpfgrant

#endif  // BPFGRANT_CLIENT_PARAMETER_H_

// Parameters: what values a program's manifest allows its clients, and what
// rules leave of that is narrowing.h's.
//
// A pure library, like the policy: broker and loader both check by it.

#ifndef POLICY_PARAMETER_H_
#define POLICY_PARAMETER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bpfgrant/v1/parameter.pb.h"

namespace bpfgrant::policy {

using Parameters = google::protobuf::RepeatedPtrField<v1::Parameter>;
using ParameterValues = google::protobuf::RepeatedPtrField<v1::ParameterValue>;

// What `parameter` may be, for people: "1 to 64 bytes", "one of pass, drop".
std::string RangeOf(const v1::Parameter& parameter);

// Whether `value` is of the type and in the range of `parameter`.
// REASON_PARAMETER_RANGE, with the range.
absl::Status CheckValue(const v1::Parameter& parameter,
                        const v1::ParameterValue& value);

// The values of all parameters `declared`, in their order: those given, else
// the defaults. Optional ones that were not given have none.
//
// REASON_PARAMETER_UNKNOWN, _MISSING, _RANGE, with name and range;
// REASON_INVALID_ARGUMENT: one is given twice. Without `ranges` only names are
// looked at: for tests.
absl::StatusOr<std::vector<v1::ParameterValue>> Settle(
    const Parameters& declared, const ParameterValues& given,
    bool ranges = true);

// The value as text: a number, a choice's name, bytes in hexadecimal, those of
// an address with "/" and its length; "fd" of an fd.
std::string DescribeValue(const v1::ParameterValue& value);

// Null: there is none of that name.
const v1::Parameter* FindParameter(const Parameters& declared,
                                   const std::string& name);

// The number that an integer or a choice stands for; 0 of others.
int64_t NumberOf(const v1::Parameter& parameter,
                 const v1::ParameterValue& value);

// Of `values`, those that go into that place. Empty if each is its default:
// then they are there already.
std::vector<v1::ParameterValue> OtherThanDefaults(
    const Parameters& declared, const std::vector<v1::ParameterValue>& values,
    v1::Parameter::PlaceCase place);

}  // namespace bpfgrant::policy

#endif  // POLICY_PARAMETER_H_

// What a rule leaves its callers of the range that a manifest gives a
// parameter.

#ifndef POLICY_NARROWING_H_
#define POLICY_NARROWING_H_

#include <vector>

#include "absl/status/status.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "bpfgrant/v1/policy.pb.h"
#include "policy/parameter.h"
#include "proto/text/text_file.h"

namespace bpfgrant::policy {

// Takes the narrowings of `rule`, element `index` of `file`, over into
// `compiled`. REASON_FILE_INVALID, with the place: a parameter that is named
// twice or cannot exist, a range that nothing is in, what is no prefix, any of
// it on a DENY.
absl::Status CompileNarrowings(const TextFile& file, int index,
                               const v1::Rule& rule,
                               daemon::CompiledRule& compiled);

// Whether `rule` lets its callers have `values`, defaults as well, of a program
// with the parameters `declared`. REASON_PARAMETER_NARROWED, with what it would
// let them have; REASON_PARAMETER_MISSING: one that it narrows has no value.
absl::Status CheckNarrowing(const daemon::CompiledRule& rule,
                            const Parameters& declared,
                            const std::vector<v1::ParameterValue>& values);

}  // namespace bpfgrant::policy

#endif  // POLICY_NARROWING_H_

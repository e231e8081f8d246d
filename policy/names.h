// Which names and patterns a rule may have in it. What nothing can ever be
// called is a mistake of the administrator's, and is told as one.

#ifndef POLICY_NAMES_H_
#define POLICY_NAMES_H_

#include <string>
#include <string_view>

#include "bpfgrant/v1/policy.pb.h"

namespace bpfgrant::policy {

// Each returns what is wrong, as the end of a sentence about the rule ("names
// unit 'x': ..."); empty: nothing.
std::string JudgeProgram(std::string_view pattern);
std::string JudgeTag(std::string_view tag);
std::string JudgeUnit(std::string_view pattern);
std::string JudgeSlice(std::string_view pattern);
std::string JudgeCgroup(std::string_view path);
std::string JudgeLabel(std::string_view pattern);
std::string JudgeExecutable(const v1::Executable& executable);

}  // namespace bpfgrant::policy

#endif  // POLICY_NAMES_H_

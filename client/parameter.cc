#include "client/bpfgrant/parameter.h"

#include <utility>

namespace bpfgrant {
namespace {

v1::ParameterValue Named(std::string name) {
  v1::ParameterValue value;
  value.set_name(std::move(name));
  return value;
}

}  // namespace

v1::ParameterValue IntegerParameter(std::string name, int64_t value) {
  v1::ParameterValue parameter = Named(std::move(name));
  parameter.set_integer(value);
  return parameter;
}

v1::ParameterValue ChoiceParameter(std::string name, std::string choice) {
  v1::ParameterValue parameter = Named(std::move(name));
  parameter.set_choice(std::move(choice));
  return parameter;
}

v1::ParameterValue BytesParameter(std::string name, std::string bytes) {
  v1::ParameterValue parameter = Named(std::move(name));
  parameter.set_bytes(std::move(bytes));
  return parameter;
}

v1::ParameterValue PrefixParameter(std::string name, std::string address,
                                   uint32_t length) {
  v1::ParameterValue parameter = Named(std::move(name));
  parameter.mutable_prefix()->set_address(std::move(address));
  parameter.mutable_prefix()->set_length(length);
  return parameter;
}

}  // namespace bpfgrant

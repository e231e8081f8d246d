#include "daemon/loader/loop_manifest.h"

#include <algorithm>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/loader/loop_link.h"
#include "daemon/loader/loop_operations.h"
#include "proto/wire/limits.h"
#include "proto/wire/ring.h"

namespace bpfgrant::daemon {
namespace {

constexpr uint32_t kPage = 4096;

bool IsPowerOfTwo(uint32_t number) {
  return number != 0 && (number & (number - 1)) == 0;
}

absl::Status CheckGeometry(const TextFile& text,
                           const v1::Manifest::Loop& loop) {
  const auto complain = [&](const char* field, absl::string_view what) {
    return text.Complain(text.Where("loop", -1, field), std::string(what));
  };
  if (!IsPowerOfTwo(loop.sq_entries()) || loop.sq_entries() > kMaxSqEntries) {
    return complain("sq_entries",
                    absl::StrCat("sq_entries must be given: a power of two, at "
                                 "most ",
                                 kMaxSqEntries));
  }
  if (!IsPowerOfTwo(loop.cq_entries()) || loop.cq_entries() > kMaxCqEntries ||
      loop.cq_entries() < loop.sq_entries()) {
    return complain("cq_entries",
                    absl::StrCat("cq_entries must be given: a power of two, at "
                                 "least sq_entries and at most ",
                                 kMaxCqEntries));
  }
  if (loop.memory_bytes() % kPage != 0 ||
      loop.memory_bytes() > kMaxLoopMemoryBytes) {
    return complain("memory_bytes",
                    absl::StrCat("memory_bytes is a multiple of ", kPage,
                                 " and at most ", kMaxLoopMemoryBytes));
  }
  if (loop.has_step_budget() &&
      (loop.step_budget() == 0 || loop.step_budget() > kMaxStepBudget)) {
    return complain("step_budget",
                    absl::StrCat("step_budget is from 1 to ", kMaxStepBudget));
  }
  return absl::OkStatus();
}

// Each name once, and one that `check` has nothing against.
template <typename Names, typename Check>
absl::Status CheckNames(const TextFile& text, const char* field,
                        const Names& names, const Check& check) {
  std::set<std::string> seen;
  for (int i = 0; i < names.size(); ++i) {
    const Place place = text.Where("loop", -1, field, i);
    if (const std::string wrong = check(names[i]); !wrong.empty()) {
      return text.Complain(place, wrong);
    }
    if (!seen.insert(names[i]).second) {
      return text.Complain(
          place, std::string(absl::StrCat(names[i], " stands here twice")));
    }
  }
  return absl::OkStatus();
}

std::string WrongWithOperation(const std::string& name) {
  const LoopOperation* operation = FindLoopOperation(name);
  if (operation == nullptr) {
    return absl::StrCat("there is no operation '", name,
                        "'; they are named as in enum io_uring_op, without "
                        "IORING_OP_");
  }
  if (operation->allowed) return "";
  return absl::StrCat("no loop may have ", name, ": ",
                      std::string(operation->grounds));
}

std::string WrongWithFlag(const std::string& name) {
  if (FindRequestFlag(name) != nullptr) return "";
  return absl::StrCat("there is no request flag '", name,
                      "'; they are named as IOSQE_ names them");
}

std::string WrongWithCall(const std::string& name) {
  if (FindRegisterCall(name) != nullptr) return "";
  return absl::StrCat("a loop's ring cannot be allowed the register call '",
                      name, "'");
}

absl::Status CheckRights(const TextFile& text, const v1::Manifest::Loop& loop) {
  if (loop.opcode().empty()) {
    return text.Complain(text.Where("loop", -1, "opcode"),
                         "opcode must be given: all operations of the loop");
  }
  if (auto status =
          CheckNames(text, "opcode", loop.opcode(), WrongWithOperation);
      !status.ok()) {
    return status;
  }
  if (auto status =
          CheckNames(text, "sqe_flag", loop.sqe_flag(), WrongWithFlag);
      !status.ok()) {
    return status;
  }
  return CheckNames(text, "register_call", loop.register_call(), WrongWithCall);
}

}  // namespace

absl::Status CheckLoop(const TextFile& text, const v1::Manifest& manifest) {
  if (!IsLoop(manifest)) {
    if (manifest.has_loop()) {
      return text.Complain(text.Where("loop"),
                           "loop is for programs of type IO_URING_LOOP");
    }
    return absl::OkStatus();
  }
  const v1::Manifest::Program& program = manifest.program();
  if (program.function() != kLoopStep) {
    return text.Complain(
        text.Where("program", -1, "function"),
        absl::StrCat("the function of a loop is '", kLoopStep, "'"));
  }
  if (program.delivery_size() != 1 ||
      program.delivery(0) != v1::DELIVERY_RING) {
    return text.Complain(text.Where("program", -1, "delivery", 0),
                         "a loop's only delivery is DELIVERY_RING");
  }
  if (program.on_revoke() != v1::Manifest::ON_REVOKE_UNSPECIFIED) {
    return text.Complain(text.Where("program", -1, "on_revoke"),
                         "a revoked loop stops; it has no on_revoke");
  }
  if (!manifest.has_loop()) {
    return text.Complain(text.Where("loop"), "loop is missing");
  }
  if (auto status = CheckGeometry(text, manifest.loop()); !status.ok()) {
    return status;
  }
  return CheckRights(text, manifest.loop());
}

v1::LoopDescription DescribeLoop(const v1::Manifest& manifest) {
  const v1::Manifest::Loop& loop = manifest.loop();
  v1::LoopDescription description;
  description.set_setup_flags(kLoopSetupFlags);
  description.set_sq_entries(loop.sq_entries());
  description.set_cq_entries(loop.cq_entries());
  description.set_memory_bytes(loop.memory_bytes());
  description.set_step_budget(loop.has_step_budget() ? loop.step_budget()
                                                     : kDefaultStepBudget);
  *description.mutable_opcode() = loop.opcode();
  *description.mutable_sqe_flag() = loop.sqe_flag();
  *description.mutable_register_call() = loop.register_call();
  description.set_traceable(loop.trace());
  return description;
}

LoopRights RightsOf(const v1::Manifest::Loop& loop) {
  LoopRights rights;
  for (const std::string& name : loop.opcode()) {
    rights.operations.push_back(FindLoopOperation(name)->number);
  }
  for (const std::string& name : loop.sqe_flag()) {
    rights.request_flags |= FindRequestFlag(name)->number;
  }
  const auto always = AlwaysAllowedRegisterCalls();
  rights.register_calls.assign(always.begin(), always.end());
  for (const std::string& name : loop.register_call()) {
    const uint8_t number = FindRegisterCall(name)->number;
    if (std::find(always.begin(), always.end(), number) == always.end()) {
      rights.register_calls.push_back(number);
    }
  }
  return rights;
}

std::vector<std::string> SessionMaps(const v1::Manifest& manifest) {
  std::vector<std::string> names;
  for (const v1::Manifest::Map& map : manifest.map()) {
    if (map.scope() == v1::Manifest::SCOPE_SESSION) names.push_back(map.name());
  }
  return names;
}

}  // namespace bpfgrant::daemon

#include "daemon/loader/tracing_manifest.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "daemon/loader/manifest.h"
#include "google/protobuf/repeated_field.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {
namespace {

using Hooks = google::protobuf::RepeatedPtrField<v1::Manifest::Hook>;

// Those of the manifest, or of its variant `variant`.
absl::Status CheckHooks(const TextFile& text, const Hooks& hooks, int variant) {
  const auto complain = [&](int i, std::string_view field,
                            std::string_view what) {
    return text.Complain(variant < 0
                             ? text.Where("hook", i, field)
                             : text.Where("variant", variant, "hook", i),
                         what);
  };
  std::set<std::string> functions;
  for (int i = 0; i < hooks.size(); ++i) {
    if (i == kMaxHooks) {
      return complain(
          i, "function",
          absl::StrCat("a program has at most ", kMaxHooks, " hooks"));
    }
    if (!IsIdentifier(hooks[i].function())) {
      return complain(i, "function",
                      "a hook's function must be given: its name in the "
                      "object");
    }
    if (!IsIdentifier(hooks[i].tracepoint())) {
      return complain(i, "tracepoint",
                      "a hook's tracepoint must be given, as the kernel names "
                      "it");
    }
    if (!functions.insert(hooks[i].function()).second) {
      return complain(
          i, "function",
          absl::StrCat("function '", hooks[i].function(), "' is hooked twice"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckAllHooks(const TextFile& text, const v1::Manifest& manifest) {
  if (auto status = CheckHooks(text, manifest.hook(), -1); !status.ok()) {
    return status;
  }
  bool missing = manifest.variant().empty() && manifest.hook().empty();
  for (int i = 0; i < manifest.variant_size(); ++i) {
    const Hooks& hooks = manifest.variant(i).hook();
    missing |= hooks.empty() && manifest.hook().empty();
    if (auto status = CheckHooks(text, hooks, i); !status.ok()) return status;
  }
  if (missing) {
    return text.Complain(text.Where("program"),
                         "a tracing program needs hooks: its functions and "
                         "their tracepoints");
  }
  return absl::OkStatus();
}

absl::Status CheckNoHooks(const TextFile& text, const v1::Manifest& manifest) {
  constexpr char kWhat[] = "a hook is for programs of type TRACING";
  if (!manifest.hook().empty()) {
    return text.Complain(text.Where("hook", 0), kWhat);
  }
  for (int i = 0; i < manifest.variant_size(); ++i) {
    if (!manifest.variant(i).hook().empty()) {
      return text.Complain(text.Where("variant", i, "hook", 0), kWhat);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTracing(const TextFile& text, const v1::Manifest& manifest) {
  if (!IsTracing(manifest)) return CheckNoHooks(text, manifest);
  const v1::Manifest::Program& program = manifest.program();
  if (!program.function().empty()) {
    return text.Complain(text.Where("program", -1, "function"),
                         "the functions of a tracing program stand in its "
                         "hooks");
  }
  if (program.delivery_size() != 1 ||
      program.delivery(0) != v1::DELIVERY_PROCESS) {
    return text.Complain(text.Where("program", -1, "delivery", 0),
                         "a tracing program's only delivery is "
                         "DELIVERY_PROCESS");
  }
  if (program.on_revoke() != v1::Manifest::ON_REVOKE_UNSPECIFIED) {
    return text.Complain(text.Where("program", -1, "on_revoke"),
                         "a tracing program decides nothing; it has no "
                         "on_revoke");
  }
  for (int i = 0; i < manifest.map_size(); ++i) {
    if (manifest.map(i).scope() != v1::Manifest::SCOPE_GRANT) {
      return text.Complain(text.Where("map", i, "scope"),
                           "a tracing program's maps are its grants'");
    }
  }
  return CheckAllHooks(text, manifest);
}

void DescribeHooks(const v1::Manifest& manifest,
                   v1::ProgramDescription& description) {
  std::vector<std::string> functions;
  for (const v1::Manifest::Hook& hook : manifest.hook()) {
    functions.push_back(hook.function());
    description.add_tracepoint(hook.tracepoint());
  }
  description.set_entry_point(absl::StrJoin(functions, ", "));
}

}  // namespace bpfgrant::daemon

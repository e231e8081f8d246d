#include "daemon/broker/snapshot.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/status/status.h"

namespace bpfgrant::broker {

bool Program::Allows(v1::Delivery delivery) const {
  const auto& allowed = description().detail().allowed_delivery();
  return std::find(allowed.begin(), allowed.end(), delivery) != allowed.end();
}

std::string ChosenVariant(const v1::DescribeReply& description) {
  for (const v1::VariantDescription& variant : description.variant()) {
    if (variant.chosen()) return variant.name();
  }
  return "";
}

absl::StatusOr<std::shared_ptr<const Snapshot>> Snapshot::Read(
    const UniqueFd& memfd) {
  struct stat status {};
  if (fstat(memfd.get(), &status) < 0 || !S_ISREG(status.st_mode)) {
    return absl::InternalError("the loader sent no snapshot");
  }
  const auto size = static_cast<size_t>(status.st_size);
  // No program and no rule: as a message, that is no byte, which cannot be
  // mapped.
  if (size == 0) return std::make_shared<const Snapshot>();
  void* bytes = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, memfd.get(), 0);
  if (bytes == MAP_FAILED) {
    return absl::InternalError("cannot map the loader's snapshot");
  }
  daemon::Snapshot message;
  const bool parsed = message.ParseFromArray(bytes, static_cast<int>(size));
  munmap(bytes, size);
  if (!parsed) return absl::InternalError("the loader's snapshot is broken");

  auto snapshot = std::make_shared<Snapshot>();
  for (daemon::CatalogEntry& entry : *message.mutable_entry()) {
    std::string name = entry.description().summary().name();
    snapshot->programs_.emplace(std::move(name), Program{std::move(entry)});
  }
  const std::vector<daemon::CompiledRule> rules(message.rule().begin(),
                                                message.rule().end());
  snapshot->rules_ = policy::Rules(rules);
  for (const daemon::CompiledRule& rule : rules) {
    if (rule.parameter_size() > 0) {
      snapshot->narrowing_rules_.emplace(rule.name(), rule);
    }
  }
  snapshot->admission_limits_.assign(message.admission_limit().begin(),
                                     message.admission_limit().end());
  return snapshot;
}

const daemon::CompiledRule* Snapshot::FindNarrowing(
    const std::string& rule) const {
  const auto found = narrowing_rules_.find(rule);
  return found == narrowing_rules_.end() ? nullptr : &found->second;
}

const Program* Snapshot::Find(std::string_view name) const {
  const auto found =
      programs_.find(absl::string_view(name.data(), name.size()));
  return found == programs_.end() ? nullptr : &found->second;
}

}  // namespace bpfgrant::broker

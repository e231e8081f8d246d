#include "daemon/stored_names.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace bpfgrant::daemon {

std::string StoredName(std::string_view word,
                       const std::vector<uint64_t>& numbers) {
  std::string name(word);
  for (const uint64_t number : numbers) absl::StrAppend(&name, ".", number);
  return name;
}

std::optional<std::vector<uint64_t>> NumbersOf(std::string_view name,
                                               std::string_view word) {
  const std::vector<std::string> parts =
      absl::StrSplit(absl::string_view(name.data(), name.size()), '.');
  if (parts.front() != word) return std::nullopt;
  std::vector<uint64_t> numbers(parts.size() - 1);
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (!absl::SimpleAtoi(parts[i + 1], &numbers[i])) return std::nullopt;
  }
  return numbers;
}

StoredBy WhoStored(std::string_view name) {
  constexpr std::string_view kBrokers[] = {kStoredLedger, kStoredSession,
                                           kStoredClient, kStoredInstance,
                                           kStoredShared};
  constexpr std::string_view kLoaders[] = {kStoredGates,   kStoredTrace,
                                           kStoredSteps,   kStoredLink,
                                           kStoredProcess, kStoredMachine};
  const std::string_view word = name.substr(0, name.find('.'));
  const auto is = [word](const auto& words) {
    return std::find(std::begin(words), std::end(words), word) !=
           std::end(words);
  };
  return is(kBrokers)   ? StoredBy::kBroker
         : is(kLoaders) ? StoredBy::kLoader
                        : StoredBy::kNobody;
}

}  // namespace bpfgrant::daemon

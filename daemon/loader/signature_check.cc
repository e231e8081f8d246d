#include "daemon/loader/signature_check.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "daemon/loader/signature_file.h"

namespace bpfgrant::daemon {
namespace {

using Rule = policy::CompiledSignatureRule;

absl::StatusOr<std::vector<Signature>> ReadSignatures(
    const SafeDirectory& folder, const std::string& file) {
  const std::string name = absl::StrCat(file, std::string(kSignatureSuffix));
  const auto text = folder.Read(name, kMaxSignatureFileBytes);
  if (!text.ok()) return text.status();
  return ParseSignatures(folder.PathOf(name), text->view());
}

bool IsMet(const Rule& rule, const std::set<std::string>& keys) {
  if (rule.rule.key().empty()) return !keys.empty();
  return std::ranges::any_of(rule.rule.key(), [&](const std::string& key) {
    return keys.contains(key);
  });
}

std::string NotMet(const Rule& rule, const std::string& path,
                   absl::string_view why) {
  return absl::StrCat(path, ": signature rule '", rule.rule.name(), "' (",
                      rule.place, ") is not met: ", why);
}

}  // namespace

SignatureCheck::Finding SignatureCheck::Check(const Subject& subject,
                                              const SafeDirectory& folder,
                                              const std::string& file,
                                              std::string_view bytes) const {
  const auto rules = rules_.For(subject.directory, subject.program);
  if (rules.empty()) return {};
  const std::string path = folder.PathOf(file);
  const auto signatures = ReadSignatures(folder, file);
  if (!signatures.ok()) {
    return {NotMet(*rules.front(), path, signatures.status().message()), {}};
  }
  const std::string message = SignedBytes(subject.name, bytes);
  std::set<std::string> valid;
  std::vector<std::string> complaints;
  for (const Signature& signature : *signatures) {
    const auto key = keys_.Find(signature.key);
    if (!key.ok()) {
      complaints.emplace_back(key.status().message());
    } else if (!key->Verify(message, signature.bytes)) {
      complaints.push_back(
          absl::StrCat("key '", signature.key, "' did not sign this"));
    } else {
      valid.insert(signature.key);
    }
  }
  for (const Rule* rule : rules) {
    if (IsMet(*rule, valid)) continue;
    if (!valid.empty()) {
      complaints.push_back(
          absl::StrCat("it takes key ", absl::StrJoin(rule->rule.key(), ", ")));
    }
    return {NotMet(*rule, path,
                   complaints.empty() ? "no key signed it"
                                      : absl::StrJoin(complaints, "; ")),
            std::move(valid)};
  }
  return {"", std::move(valid)};
}

}  // namespace bpfgrant::daemon

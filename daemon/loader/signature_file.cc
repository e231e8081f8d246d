#include "daemon/loader/signature_file.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/ed25519.h"
#include "policy/signatures.h"

namespace bpfgrant::daemon {
namespace {

constexpr std::string_view kDomain = "bpfgrant-signature-v1";

// The bytes of one signature; none if it is not in the one form that there is.
std::string Decode(std::string_view base64) {
  std::string bytes;
  if (!absl::Base64Unescape({base64.data(), base64.size()}, &bytes) ||
      bytes.size() != kSignatureBytes || absl::Base64Escape(bytes) != base64) {
    return {};
  }
  return bytes;
}

}  // namespace

std::string SignedBytes(std::string_view name, std::string_view bytes) {
  std::string all(kDomain);
  all.push_back('\0');
  all.append(name);
  all.push_back('\0');
  all.append(bytes);
  return all;
}

absl::StatusOr<std::vector<Signature>> ParseSignatures(const std::string& file,
                                                       std::string_view text) {
  std::vector<Signature> signatures;
  for (int line = 1; !text.empty(); ++line) {
    const auto complain = [&](const std::string& what) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ":", line, ": ", what));
    };
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return complain("cut off");
    const std::string_view row = text.substr(0, end);
    text.remove_prefix(end + 1);
    const size_t blank = row.find(' ');
    Signature signature{std::string(row.substr(0, blank)), {}};
    if (blank != std::string_view::npos) {
      signature.bytes = Decode(row.substr(blank + 1));
    }
    if (!policy::IsKeyName(signature.key) || signature.bytes.empty()) {
      return complain("not a key's name, a blank, and 64 bytes in base64");
    }
    if (std::ranges::find(signatures, signature.key, &Signature::key) !=
        signatures.end()) {
      return complain(absl::StrCat("key '", signature.key, "' stands twice"));
    }
    signatures.push_back(std::move(signature));
  }
  return signatures;
}

std::string FormatSignature(const Signature& signature) {
  return absl::StrCat(signature.key, " ", absl::Base64Escape(signature.bytes),
                      "\n");
}

}  // namespace bpfgrant::daemon

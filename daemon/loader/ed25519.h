// Ed25519 keys, in the PEM forms that openssl(1) reads and writes. The one
// place that asks OpenSSL for signatures.

#ifndef DAEMON_LOADER_ED25519_H_
#define DAEMON_LOADER_ED25519_H_

#include <openssl/evp.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"

namespace bpfgrant::daemon {

inline constexpr size_t kSignatureBytes = 64;

class PublicKey {
 public:
  // A SubjectPublicKeyInfo in PEM, and nothing beside it; `file` is what
  // messages call it. REASON_FILE_INVALID: it is none, or of another algorithm.
  static absl::StatusOr<PublicKey> Parse(const std::string& file,
                                         std::string_view pem);

  bool Verify(std::string_view message, std::string_view signature) const;

 private:
  explicit PublicKey(std::shared_ptr<EVP_PKEY> key) : key_(std::move(key)) {}

  std::shared_ptr<EVP_PKEY> key_;
};

class PrivateKey {
 public:
  // kInternal: OpenSSL fails.
  static absl::StatusOr<PrivateKey> Generate();
  // PKCS#8 in PEM, not encrypted. REASON_FILE_INVALID.
  static absl::StatusOr<PrivateKey> Parse(const std::string& file,
                                          std::string_view pem);

  // kSignatureBytes. kInternal: OpenSSL fails.
  absl::StatusOr<std::string> Sign(std::string_view message) const;
  absl::StatusOr<std::string> PrivatePem() const;
  absl::StatusOr<std::string> PublicPem() const;

 private:
  explicit PrivateKey(std::shared_ptr<EVP_PKEY> key) : key_(std::move(key)) {}

  std::shared_ptr<EVP_PKEY> key_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ED25519_H_

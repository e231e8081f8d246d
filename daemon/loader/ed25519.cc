#include "daemon/loader/ed25519.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;

// Leaves nothing behind for the next who looks at OpenSSL's errors.
absl::Status Failed(const char* what) {
  ERR_clear_error();
  return absl::InternalError(absl::StrCat("OpenSSL does not ", what));
}

// Instead of asking a terminal.
int NoPassword(char*, int, int, void*) { return -1; }

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

// Reads one key with `read` from a file that begins with `heading` and ends
// with the key.
template <typename Read>
absl::StatusOr<std::shared_ptr<EVP_PKEY>> ParsePem(const std::string& file,
                                                   std::string_view pem,
                                                   std::string_view heading,
                                                   Read read) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())),
                BIO_free);
  std::shared_ptr<EVP_PKEY> key(
      pem.starts_with(heading) ? read(bio.get(), nullptr, NoPassword, nullptr)
                               : nullptr,
      EVP_PKEY_free);
  ERR_clear_error();
  if (key == nullptr || BIO_ctrl_pending(bio.get()) != 0) {
    return Refuse(
        v1::REASON_FILE_INVALID,
        absl::StrCat(file, ": not one key in PEM, ", std::string(heading)));
  }
  if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519) {
    return Refuse(v1::REASON_FILE_INVALID,
                  absl::StrCat(file, ": not a key of Ed25519"));
  }
  return key;
}

template <typename Write>
absl::StatusOr<std::string> ToPem(Write write) {
  const Bio bio(BIO_new(BIO_s_mem()), BIO_free);
  if (bio == nullptr || write(bio.get()) != 1) return Failed("write a key");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

}  // namespace

absl::StatusOr<PublicKey> PublicKey::Parse(const std::string& file,
                                           std::string_view pem) {
  auto key =
      ParsePem(file, pem, "-----BEGIN PUBLIC KEY-----", PEM_read_bio_PUBKEY);
  if (!key.ok()) return key.status();
  return PublicKey(*std::move(key));
}

bool PublicKey::Verify(std::string_view message,
                       std::string_view signature) const {
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  const bool valid =
      context != nullptr &&
      EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr,
                           key_.get()) == 1 &&
      EVP_DigestVerify(context.get(), Bytes(signature), signature.size(),
                       Bytes(message), message.size()) == 1;
  ERR_clear_error();
  return valid;
}

absl::StatusOr<PrivateKey> PrivateKey::Generate() {
  std::shared_ptr<EVP_PKEY> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"),
                                EVP_PKEY_free);
  if (key == nullptr) return Failed("make a key");
  return PrivateKey(std::move(key));
}

absl::StatusOr<PrivateKey> PrivateKey::Parse(const std::string& file,
                                             std::string_view pem) {
  auto key = ParsePem(file, pem, "-----BEGIN PRIVATE KEY-----",
                      PEM_read_bio_PrivateKey);
  if (!key.ok()) return key.status();
  return PrivateKey(*std::move(key));
}

absl::StatusOr<std::string> PrivateKey::Sign(std::string_view message) const {
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::string signature(kSignatureBytes, '\0');
  size_t size = signature.size();
  if (context == nullptr ||
      EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr,
                         key_.get()) != 1 ||
      EVP_DigestSign(context.get(),
                     reinterpret_cast<unsigned char*>(signature.data()), &size,
                     Bytes(message), message.size()) != 1) {
    return Failed("sign");
  }
  return signature;
}

absl::StatusOr<std::string> PrivateKey::PrivatePem() const {
  return ToPem([this](BIO* bio) {
    return PEM_write_bio_PKCS8PrivateKey(bio, key_.get(), nullptr, nullptr, 0,
                                         nullptr, nullptr);
  });
}

absl::StatusOr<std::string> PrivateKey::PublicPem() const {
  return ToPem(
      [this](BIO* bio) { return PEM_write_bio_PUBKEY(bio, key_.get()); });
}

}  // namespace bpfgrant::daemon

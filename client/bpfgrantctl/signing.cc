// keygen, sign, verify-signature: what vouches for a manifest, without the
// daemon.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpfgrant/v1/signature.pb.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/folders.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "daemon/loader/drop_in.h"
#include "daemon/loader/ed25519.h"
#include "daemon/loader/key_ring.h"
#include "daemon/loader/signature_file.h"
#include "policy/signatures.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::ctl {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrivateKeySuffix = ".key";

absl::Status FileError(const fs::path& path, int error) {
  return UsageError(absl::StrCat(path.string(), ": ", std::strerror(error)));
}

absl::StatusOr<std::string> ReadFile(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return FileError(path, error ? error.value() : ENOENT);
  }
  if (fs::file_size(path, error) > kMaxTextFileBytes) {
    return FileError(path, EFBIG);
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) return FileError(path, errno);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Writes a file that there is not yet.
absl::Status WriteNewFile(const fs::path& path, std::string_view bytes,
                          mode_t mode) {
  UniqueFd fd(
      open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd.valid()) return FileError(path, errno);
  // Whatever the umask is.
  if (fchmod(fd.get(), mode) < 0 ||
      write(fd.get(), bytes.data(), bytes.size()) !=
          static_cast<ssize_t>(bytes.size()) ||
      fsync(fd.get()) < 0) {
    const int error = errno;
    unlink(path.c_str());
    return FileError(path, error);
  }
  return absl::OkStatus();
}

// A reader gets the old file or the new one.
absl::Status ReplaceFile(const fs::path& path, std::string_view bytes) {
  fs::path aside = path;
  aside += absl::StrCat(".", getpid());
  if (auto status = WriteNewFile(aside, bytes, 0644); !status.ok()) {
    return status;
  }
  if (rename(aside.c_str(), path.c_str()) < 0) {
    const int error = errno;
    unlink(aside.c_str());
    return FileError(path, error);
  }
  return absl::OkStatus();
}

// "NAME.manifest", or "NAME.manifest.d/FILE.conf": what is signed with it.
std::string SignedName(const fs::path& file) {
  const fs::path whole = fs::absolute(file).lexically_normal();
  return whole.extension() == daemon::kDropInSuffix
             ? (whole.parent_path().filename() / whole.filename()).string()
             : whole.filename().string();
}

fs::path SignatureFileOf(fs::path file) {
  file += daemon::kSignatureSuffix;
  return file;
}

absl::StatusOr<std::vector<daemon::Signature>> ReadSignatures(
    const fs::path& file) {
  const auto text = ReadFile(file);
  if (!text.ok()) return text.status();
  auto signatures = daemon::ParseSignatures(file.string(), *text);
  if (signatures.ok()) return signatures;
  const absl::string_view what = signatures.status().message();
  return Refuse(v1::REASON_SIGNATURE, {what.data(), what.size()});
}

absl::StatusOr<int> Keygen(const Settings& settings, const std::string& name,
                           const fs::path& directory) {
  if (!policy::IsKeyName(name)) {
    return UsageError(absl::StrCat("'", name,
                                   "': a key's name has letters, digits, '.', "
                                   "'_' and '-', at most ",
                                   kMaxNameBytes));
  }
  const auto key = daemon::PrivateKey::Generate();
  if (!key.ok()) return key.status();
  const auto secret = key->PrivatePem();
  const auto known = key->PublicPem();
  if (!secret.ok()) return secret.status();
  if (!known.ok()) return known.status();
  const fs::path secret_file =
      directory / absl::StrCat(name, std::string(kPrivateKeySuffix));
  const fs::path known_file =
      directory / absl::StrCat(name, std::string(daemon::kPublicKeySuffix));
  if (fs::exists(known_file)) return FileError(known_file, EEXIST);
  if (auto status = WriteNewFile(secret_file, *secret, 0600); !status.ok()) {
    return status;
  }
  if (auto status = WriteNewFile(known_file, *known, 0644); !status.ok()) {
    unlink(secret_file.c_str());
    return status;
  }
  if (settings.json) {
    v1::KeygenReply reply;
    reply.set_name(name);
    reply.set_private_key(secret_file.string());
    reply.set_public_key(known_file.string());
    if (auto printed = PrintJson(reply); !printed.ok()) return printed;
  } else {
    std::printf("%s signs; keep it secret.\n%s goes into /etc/bpfgrant/keys.\n",
                Escape(secret_file.string()).c_str(),
                Escape(known_file.string()).c_str());
  }
  return kOk;
}

struct SignOptions {
  std::string file, key, name;
};

absl::StatusOr<int> Sign(const Settings& settings, const SignOptions& given) {
  const fs::path key_file = given.key;
  const std::string name =
      given.name.empty() ? key_file.stem().string() : given.name;
  if (!policy::IsKeyName(name)) {
    return UsageError(absl::StrCat("--name: '", name, "' is no key's name"));
  }
  const auto pem = ReadFile(key_file);
  if (!pem.ok()) return pem.status();
  const auto key = daemon::PrivateKey::Parse(key_file.string(), *pem);
  if (!key.ok()) return key.status();
  const auto bytes = ReadFile(given.file);
  if (!bytes.ok()) return bytes.status();
  const fs::path signature_file = SignatureFileOf(given.file);
  std::vector<daemon::Signature> signatures;
  if (fs::exists(signature_file)) {
    auto present = ReadSignatures(signature_file);
    if (!present.ok()) return present.status();
    signatures = *std::move(present);
  }
  const std::string signed_name = SignedName(given.file);
  auto made = key->Sign(daemon::SignedBytes(signed_name, *bytes));
  if (!made.ok()) return made.status();
  std::erase_if(signatures, [&](const daemon::Signature& signature) {
    return signature.key == name;
  });
  signatures.push_back({name, *std::move(made)});
  std::string text;
  for (const daemon::Signature& signature : signatures) {
    absl::StrAppend(&text, daemon::FormatSignature(signature));
  }
  if (auto status = ReplaceFile(signature_file, text); !status.ok()) {
    return status;
  }
  if (settings.json) {
    v1::SignReply reply;
    reply.set_file(signature_file.string());
    reply.set_signed_name(signed_name);
    reply.set_key(name);
    if (auto printed = PrintJson(reply); !printed.ok()) return printed;
  } else {
    std::printf("%s: signed as %s with key %s\n",
                Escape(signature_file.string()).c_str(),
                Escape(signed_name).c_str(), Escape(name).c_str());
  }
  return kOk;
}

struct VerifyOptions {
  std::string file;
  std::vector<std::string> keys;
};

v1::VerifySignatureReply Verify(
    const std::string& name, const std::string& bytes,
    const std::vector<daemon::Signature>& signatures,
    const daemon::KeyRing& ring) {
  v1::VerifySignatureReply reply;
  reply.set_signed_name(name);
  const std::string message = daemon::SignedBytes(name, bytes);
  for (const daemon::Signature& signature : signatures) {
    v1::VerifiedSignature& verified = *reply.add_signature();
    verified.set_key(signature.key);
    const auto key = ring.Find(signature.key);
    if (!key.ok()) {
      verified.set_complaint(std::string(key.status().message()));
    } else if (!key->Verify(message, signature.bytes)) {
      verified.set_complaint("this key did not sign this file");
    } else {
      verified.set_valid(true);
      reply.set_valid(true);
    }
  }
  return reply;
}

absl::StatusOr<int> VerifySignature(const Settings& settings,
                                    const VerifyOptions& given) {
  const auto folders = KeysOrDaemons(given.keys);
  if (!folders.ok()) return folders.status();
  const auto ring = daemon::KeyRing::Read(*folders, daemon::Mitigations());
  if (!ring.ok()) return ring.status();
  const auto bytes = ReadFile(given.file);
  if (!bytes.ok()) return bytes.status();
  const auto signatures = ReadSignatures(SignatureFileOf(given.file));
  if (!signatures.ok()) return signatures.status();
  const v1::VerifySignatureReply reply =
      Verify(SignedName(given.file), *bytes, *signatures, *ring);
  if (settings.json) {
    if (auto printed = PrintJson(reply); !printed.ok()) return printed;
  } else {
    Table table({"KEY", "SIGNATURE", "WHY"});
    for (const v1::VerifiedSignature& one : reply.signature()) {
      table.Add({one.key(),
                 one.valid() ? Cell("valid", Style::kGood)
                             : Cell("does not count", Style::kBad),
                 one.complaint()});
    }
    table.Print();
  }
  return reply.valid() ? kOk : kRefused;
}

void AddKeygen(CLI::App& app, Command& command) {
  struct Given {
    std::string name, directory = ".";
  };
  const auto given = std::make_shared<Given>();
  CLI::App* verb =
      AddVerb(app, command, "keygen",
              "Make a key that signs manifests: NAME.key and NAME.pub",
              [given](const Settings& settings) {
                return Keygen(settings, given->name, given->directory);
              });
  verb->add_option("NAME", given->name, "the key's")->required();
  verb->add_option("--directory", given->directory, "where (default: here)")
      ->type_name("DIR");
}

void AddSign(CLI::App& app, Command& command) {
  const auto given = std::make_shared<SignOptions>();
  CLI::App* verb = AddVerb(
      app, command, "sign", "Sign a manifest, or a drop-in: writes FILE.sig",
      [given](const Settings& settings) { return Sign(settings, *given); });
  verb->add_option("FILE", given->file,
                   "NAME.manifest or NAME.manifest.d/FILE.conf")
      ->required();
  verb->add_option("--key", given->key, "the private key, PKCS#8 in PEM")
      ->type_name("FILE")
      ->required();
  verb->add_option("--name", given->name,
                   "the key's name (default: its file's, without the suffix)")
      ->type_name("NAME");
}

}  // namespace

void AddSigning(CLI::App& app, Command& command) {
  AddKeygen(app, command);
  AddSign(app, command);
  const auto given = std::make_shared<VerifyOptions>();
  CLI::App* verb = AddVerb(app, command, "verify-signature",
                           "Whether keys that count signed a file",
                           [given](const Settings& settings) {
                             return VerifySignature(settings, *given);
                           });
  verb->add_option("FILE", given->file,
                   "NAME.manifest or NAME.manifest.d/FILE.conf")
      ->required();
  verb->add_option("--keys", given->keys,
                   "a folder of keys; may be given more than once, later ones "
                   "override (default: the daemon's)")
      ->type_name("DIR")
      ->allow_extra_args(false);
}

}  // namespace bpfgrant::ctl

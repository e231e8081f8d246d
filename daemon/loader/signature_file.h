// Signatures as they stand in files, and what it is that they sign:
// NAME.manifest.sig beside NAME.manifest, a line for each signature.
//
// It must not know which signatures are wanted: signature_check.h does.

#ifndef DAEMON_LOADER_SIGNATURE_FILE_H_
#define DAEMON_LOADER_SIGNATURE_FILE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace bpfgrant::daemon {

inline constexpr std::string_view kSignatureSuffix = ".sig";
inline constexpr size_t kMaxSignatureFileBytes = 16 * 1024;

struct Signature {
  std::string key;    // the name of the key that made it
  std::string bytes;  // kSignatureBytes
};

// What is signed of a file: "bpfgrant-signature-v1", a NUL byte, `name`, a NUL
// byte, and the file's bytes. `name` is how the file is called from the
// directory of programs on: "NAME.manifest", "NAME.manifest.d/FILE.conf". So no
// signature serves another file, nor anything that is not bpfgrant's.
std::string SignedBytes(std::string_view name, std::string_view bytes);

// Lines of a key's name, a blank, and the signature in base64, each ended by a
// newline; each key once. kInvalidArgument, "file:line: what".
absl::StatusOr<std::vector<Signature>> ParseSignatures(const std::string& file,
                                                       std::string_view text);

// One such line.
std::string FormatSignature(const Signature& signature);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_SIGNATURE_FILE_H_

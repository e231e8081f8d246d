// The manifest: the text that approves a program. Parses it and checks all
// that can be told from the text alone.
//
// It must not open files: object.h compares a manifest with its object.

#ifndef DAEMON_LOADER_MANIFEST_H_
#define DAEMON_LOADER_MANIFEST_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/manifest.pb.h"
#include "daemon/loader/drop_in.h"
#include "proto/text/text_file.h"
#include "proto/wire/limits.h"

namespace bpfgrant::daemon {

inline constexpr std::string_view kManifestSuffix = ".manifest";
inline constexpr size_t kMaxDescriptionBytes = 256;

// A manifest and where each part of it stands. Not movable: the places refer to
// the message.
class Manifest {
 public:
  // `file` is what messages call it, `stem` its file name without the suffix:
  // the name it must bear. `drop_ins` are applied in their order.
  //
  // Errors: REASON_FILE_INVALID or REASON_TOO_LARGE, "file:line:column: what";
  // ApplyDropIn's.
  static absl::StatusOr<std::unique_ptr<Manifest>> Parse(
      std::string file, std::string_view stem, std::string_view bytes,
      absl::Span<const DropIn> drop_ins = {});

  // With drop-ins applied, and what is the chosen variant's in its place.
  const v1::Manifest& message() const { return message_; }
  const TextFile& text() const { return text_; }

  // Makes one of the variants the program: object, digest, function and hooks.
  // Only if there are any.
  void Choose(int variant);
  // Where "object", "sha256", "function" or "hook" of the program stand.
  Place At(std::string_view field) const;

  // A refusal for `reason` that begins with a place: "file:line:column: what".
  absl::Status RefuseAt(Place place, v1::Reason reason,
                        absl::string_view what) const;

 private:
  explicit Manifest(std::string file) : text_(std::move(file)) {}

  TextFile text_;
  v1::Manifest message_;
  int variant_ = -1;
};

// What the program is attached to: what it says, else what its type says.
// Unspecified for loops, which have their rings.
v1::Target TargetOf(const v1::Manifest::Program& program);

// Whether it asks for a program that no gate stops.
bool IsUnrevocable(const v1::Manifest& manifest);

// Whether `name` can be a program's, a map's or a handle's:
// [a-z][a-z0-9_]{0,62}.
bool IsName(std::string_view name);

// Whether `name` is a C identifier of at most so many bytes.
bool IsIdentifier(std::string_view name, size_t most = kMaxNameBytes);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_MANIFEST_H_

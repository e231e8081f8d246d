// What a program's variant may need of the kernel, answered by the kernel's BTF:
// by what is there, never by a version.

#ifndef DAEMON_LOADER_NEEDS_H_
#define DAEMON_LOADER_NEEDS_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct btf;

namespace bpfgrant::daemon {

struct Need {
  enum class Kind { kKfunc, kHelper, kMap, kField, kAttach };
  Kind kind;
  std::string what;  // as in the manifest: "user_ringbuf_drain"
};

// "helper user_ringbuf_drain"; manifest.proto has all kinds. Nothing if `text`
// is no need.
std::optional<Need> ParseNeed(std::string_view text);

class KernelTypes {
 public:
  // The running kernel's; with `file`, those in that file.
  // kInternal: they cannot be read.
  static absl::StatusOr<KernelTypes> Load(const std::string& file = "");

  // REASON_KERNEL_TOO_OLD, saying what the kernel has not got.
  absl::Status Check(const Need& need) const;

 private:
  struct Closer {
    void operator()(btf* types) const;
  };
  using Types = std::unique_ptr<btf, Closer>;

  explicit KernelTypes(Types types) : types_(std::move(types)) {}
  bool Has(const Need& need) const;
  bool HasEnumerator(const char* enumeration, const std::string& name) const;
  bool HasMember(int structure, std::string_view member) const;

  Types types_;
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_NEEDS_H_

// What a program's variant may need of the kernel, answered by the kernel's
// BTF: by what is there, never by a version.

#ifndef DAEMON_LOADER_NEEDS_H_
#define DAEMON_LOADER_NEEDS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/loader/manifest.h"

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
  // kInternal: the running kernel shows none.
  static absl::StatusOr<KernelTypes> OfThisKernel();
  // Those in an open file, BTF or an ELF file that has it (vmlinux), which may
  // hold anything. kInvalidArgument: it is neither, or damaged.
  static absl::StatusOr<KernelTypes> OfFile(int file);

  // REASON_KERNEL_TOO_OLD, saying what the kernel has not got.
  absl::Status Check(const Need& need) const;
  // Whether an enumeration has that value.
  bool HasValue(const char* enumeration, uint32_t value) const;

  const btf* get() const { return types_.get(); }

 private:
  struct Closer {
    void operator()(btf* types) const;
  };
  using Types = std::unique_ptr<btf, Closer>;

  explicit KernelTypes(Types types) : types_(std::move(types)) {}
  bool Has(const Need& need) const;
  bool HasEnumerator(const char* enumeration, const std::string& name) const;
  bool HasMember(int structure, std::string_view member, int depth) const;

  Types types_;
};

bool HasNeeds(const Manifest& manifest, int variant);
// Whether `kernel` has all that a variant needs; what it has not got, with its
// place.
absl::Status CheckNeeds(const Manifest& manifest, int variant,
                        const KernelTypes& kernel);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_NEEDS_H_

// The catalog: all approved programs, as they were found in the folders at one
// moment. Immutable; a reload makes another.

#ifndef DAEMON_LOADER_CATALOG_H_
#define DAEMON_LOADER_CATALOG_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/catalog_files.h"
#include "daemon/loader/signature_check.h"

namespace bpfgrant::daemon {

class Catalog {
 public:
  Catalog() = default;

  // Reads the entries of all folders. What is wrong with one, its files, or the
  // safety of their folders makes that program unavailable and touches no
  // other: it never uncovers what it overrides. Errors: CatalogFiles::Find's.
  static absl::StatusOr<Catalog> Read(
      absl::Span<const std::string> folders, Admission& admission,
      const SignatureCheck& signatures = SignatureCheck());

  // By name; null if there is none.
  std::shared_ptr<const Program> Find(std::string_view name) const;

  // What the broker is told of it, by name, together with `rules`, in which the
  // programs of each tag are named.
  Snapshot Describe(absl::Span<const CompiledRule> rules) const;

  // Forgets one of its programs, and with it their bytes. False: there is none
  // left.
  bool ForgetOne();

  size_t size() const { return programs_.size(); }

 private:
  friend class CatalogReader;

  // Adds the programs that have a tag of the rule's.
  void NameTagged(CompiledRule& rule) const;

  std::map<std::string, std::shared_ptr<const Program>, std::less<>> programs_;
  // The keys that signed their manifests, of those that had to be signed: not
  // the program's own, which stays as it is while its files do.
  std::map<std::string, std::set<std::string>, std::less<>> signers_;
};

// Reads a catalog entry by entry, for who has something else to do between.
class CatalogReader {
 public:
  // `admission` must outlive it. Errors: CatalogFiles::Find's.
  static absl::StatusOr<CatalogReader> Begin(
      absl::Span<const std::string> folders, Admission& admission,
      SignatureCheck signatures);

  // Reads one entry. False: there was none left.
  bool Step();
  // What was read; with the last step all of it.
  Catalog Finish() &&;

 private:
  CatalogReader(CatalogFiles files, Admission& admission,
                SignatureCheck signatures);

  CatalogFiles files_;
  Admission* admission_;
  SignatureCheck signatures_;
  std::vector<std::string> left_;  // names of manifests, the next one last
  Catalog catalog_;
  std::set<std::string> identities_;  // of what was read
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_CATALOG_H_

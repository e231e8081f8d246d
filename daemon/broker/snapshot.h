// Catalog and policy as one reload left them: immutable, replaced whole.

#ifndef DAEMON_BROKER_SNAPSHOT_H_
#define DAEMON_BROKER_SNAPSHOT_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/statusor.h"
#include "bpfgrant/daemon/loader.pb.h"
#include "policy/policy.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

// One program of the catalog, available or not.
struct Program {
  daemon::CatalogEntry entry;

  const std::string& name() const {
    return entry.description().summary().name();
  }
  const v1::DescribeReply& description() const { return entry.description(); }
  bool available() const { return entry.description().summary().available(); }
  // Whether the manifest lists `delivery`.
  bool Allows(v1::Delivery delivery) const;
  bool is_loop() const { return description().detail().has_loop(); }
  bool is_tracing() const { return Allows(v1::DELIVERY_PROCESS); }
  // Whether nothing stops it.
  bool unrevocable() const {
    return description().detail().on_revoke() == "NOTHING";
  }
  // Whether the holder of its fd could endanger this kernel.
  bool dangerous() const { return !description().detail().fd_danger().empty(); }
};

// The name of the variant that this kernel took; "" without variants.
std::string ChosenVariant(const v1::DescribeReply& description);

class Snapshot {
 public:
  using Programs = absl::btree_map<std::string, Program>;  // by name

  // Reads the loader's memfd. kInternal if that is not a Snapshot.
  static absl::StatusOr<std::shared_ptr<const Snapshot>> Read(
      const UniqueFd& memfd);

  // nullptr: no such program.
  const Program* Find(std::string_view name) const;
  const Programs& programs() const { return programs_; }
  const policy::Rules& rules() const { return rules_; }
  // The rule of that name, if it narrows parameters; else nullptr.
  const daemon::CompiledRule* FindNarrowing(const std::string& rule) const;
  // The administrator's, by name.
  const std::vector<v1::LimitInForce>& admission_limits() const {
    return admission_limits_;
  }

 private:
  Programs programs_;
  policy::Rules rules_;
  // Those that narrow parameters.
  absl::btree_map<std::string, daemon::CompiledRule> narrowing_rules_;
  std::vector<v1::LimitInForce> admission_limits_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_SNAPSHOT_H_

#include "daemon/loader/map_shape.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "daemon/loader/object.h"
#include "daemon/loader/rights.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {

MapShape::MapShape(const bpf_map* map)
    : type_(bpf_map__type(map)),
      key_size_(bpf_map__key_size(map)),
      value_size_(bpf_map__value_size(map)),
      max_entries_(bpf_map__max_entries(map)),
      flags_(bpf_map__map_flags(map)),
      key_type_(bpf_map__btf_key_type_id(map)),
      value_type_(bpf_map__btf_value_type_id(map)) {}

absl::StatusOr<UniqueFd> MapShape::Make(
    const bpf_object* object, const std::string& name,
    std::optional<v1::Rights> rights) const {
  LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = flags_);
  if (rights.has_value()) options.map_flags |= CreateFlagsOf(*rights);
  // As libbpf makes the one that an array of maps is measured by: Linux 6.1
  // takes a map without BTF for another kind (bpf_map_meta_equal).
  if (value_type_ != 0) {
    options.btf_fd = static_cast<uint32_t>(bpf_object__btf_fd(object));
    options.btf_key_type_id = key_type_;
    options.btf_value_type_id = value_type_;
  }
  UniqueFd fd(bpf_map_create(static_cast<bpf_map_type>(type_), name.c_str(),
                             key_size_, value_size_, max_entries_, &options));
  if (!fd.valid()) {
    const int error = errno;
    return Refuse(
        MayPass(error) ? v1::REASON_BUSY : v1::REASON_LOAD_FAILED,
        absl::StrCat("making a map '", name, "': ", std::strerror(error)));
  }
  if (rights.has_value() && !HasRights(fd.get(), *rights)) {
    return absl::InternalError(
        absl::StrCat("the kernel did not narrow map '", name, "'"));
  }
  return fd;
}

}  // namespace bpfgrant::daemon

#include "daemon/loader/census.h"

#include <bpf/libbpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/iterator.h"
#include "daemon/loader/object.h"

extern "C" const char bpfgrant_census_begin[];
extern "C" const char bpfgrant_census_end[];

namespace bpfgrant::daemon {
namespace {

bool Contains(const std::vector<uint32_t>& ids, uint32_t id) {
  return std::binary_search(ids.begin(), ids.end(), id);
}

}  // namespace

bool Existing::HasMap(uint32_t id) const { return Contains(maps, id); }
bool Existing::HasProgram(uint32_t id) const { return Contains(programs, id); }

absl::StatusOr<Census> Census::Create() {
  auto object = OpenObject(
      {bpfgrant_census_begin,
       static_cast<size_t>(bpfgrant_census_end - bpfgrant_census_begin)},
      "census");
  if (!object.ok()) return object.status();
  const LibbpfLog log;
  if (bpf_object__load(object->get()) < 0) {
    return absl::UnimplementedError(
        absl::StrCat(std::strerror(errno), "; ", log.LastLine()));
  }
  auto maps = AttachIterator(object->get(), "census_maps", log);
  if (!maps.ok()) return maps.status();
  auto programs = AttachIterator(object->get(), "census_programs", log);
  if (!programs.ok()) return programs.status();
  return Census(*std::move(maps), *std::move(programs));
}

absl::StatusOr<Existing> Census::Take() const {
  // Programs first: one that goes meanwhile lets go of its maps.
  auto programs = ReadIterator<uint32_t>(programs_.get());
  if (!programs.ok()) return programs.status();
  auto maps = ReadIterator<uint32_t>(maps_.get());
  if (!maps.ok()) return maps.status();
  return Existing{*std::move(maps), *std::move(programs)};
}

}  // namespace bpfgrant::daemon

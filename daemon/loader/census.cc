#include "daemon/loader/census.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/object.h"

extern "C" const char bpfgrant_census_begin[];
extern "C" const char bpfgrant_census_end[];

namespace bpfgrant::daemon {
namespace {

bool Contains(const std::vector<uint32_t>& ids, uint32_t id) {
  return std::binary_search(ids.begin(), ids.end(), id);
}

absl::StatusOr<UniqueFd> Attach(const bpf_object* object, const char* name,
                                const LibbpfLog& log) {
  const bpf_program* program = bpf_object__find_program_by_name(object, name);
  bpf_link* link =
      program == nullptr ? nullptr : bpf_program__attach_iter(program, nullptr);
  if (link == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat(name, ": ", std::strerror(errno), "; ", log.LastLine()));
  }
  UniqueFd fd(fcntl(bpf_link__fd(link), F_DUPFD_CLOEXEC, 0));
  bpf_link__destroy(link);
  if (!fd.valid()) return absl::InternalError(std::strerror(errno));
  return fd;
}

absl::StatusOr<std::vector<uint32_t>> ReadIds(int link) {
  const UniqueFd iterator(bpf_iter_create(link));
  if (!iterator.valid()) {
    return absl::InternalError(
        absl::StrCat("beginning a census: ", std::strerror(errno)));
  }
  std::vector<uint32_t> ids;
  std::array<uint32_t, 4096> buffer;
  for (;;) {
    const ssize_t length = read(iterator.get(), buffer.data(), sizeof(buffer));
    if (length == 0) return ids;
    if (length < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (length < 0) {
      return absl::InternalError(
          absl::StrCat("taking a census: ", std::strerror(errno)));
    }
    ids.insert(ids.end(), buffer.begin(),
               buffer.begin() + length / ssize_t{sizeof(uint32_t)});
  }
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
  auto maps = Attach(object->get(), "census_maps", log);
  if (!maps.ok()) return maps.status();
  auto programs = Attach(object->get(), "census_programs", log);
  if (!programs.ok()) return programs.status();
  return Census(*std::move(maps), *std::move(programs));
}

absl::StatusOr<Existing> Census::Take() const {
  // Programs first: one that goes meanwhile lets go of its maps.
  auto programs = ReadIds(programs_.get());
  if (!programs.ok()) return programs.status();
  auto maps = ReadIds(maps_.get());
  if (!maps.ok()) return maps.status();
  return Existing{*std::move(maps), *std::move(programs)};
}

}  // namespace bpfgrant::daemon

#include "tests/harness/kernel_objects.h"

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::test {
namespace {

using Ids = std::set<uint32_t>;

long Bpf(bpf_cmd command, bpf_attr& attributes) {
  return syscall(SYS_bpf, command, &attributes, sizeof(attributes));
}

absl::StatusOr<Ids> Walk(bpf_cmd next) {
  Ids ids;
  uint32_t id = 0;
  while (true) {
    bpf_attr attributes{};
    attributes.start_id = id;
    if (Bpf(next, attributes) == 0) {
      id = attributes.next_id;
      ids.insert(id);
      continue;
    }
    if (errno == ENOENT) return ids;
    if (errno == EPERM) {
      return absl::PermissionDeniedError(
          "listing BPF objects needs CAP_SYS_ADMIN");
    }
    return absl::InternalError(
        absl::StrCat("listing BPF objects: ", std::strerror(errno)));
  }
}

Ids Difference(const Ids& a, const Ids& b) {
  Ids left;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(),
                      std::inserter(left, left.end()));
  return left;
}

std::string Join(const Ids& ids) {
  return ids.empty() ? "none" : absl::StrJoin(ids, " ");
}

template <typename Info>
bool ReadInfo(int fd, Info& info) {
  bpf_attr attributes{};
  attributes.info.bpf_fd = static_cast<uint32_t>(fd);
  attributes.info.info_len = sizeof(info);
  attributes.info.info = reinterpret_cast<uint64_t>(&info);
  return Bpf(BPF_OBJ_GET_INFO_BY_FD, attributes) == 0;
}

}  // namespace

KernelObjects KernelObjects::Without(const KernelObjects& others) const {
  return {Difference(programs, others.programs), Difference(maps, others.maps),
          Difference(links, others.links)};
}

std::string KernelObjects::Describe() const {
  return absl::StrCat("programs ", Join(programs), "; maps ", Join(maps),
                      "; links ", Join(links));
}

absl::StatusOr<KernelObjects> ListKernelObjects() {
  absl::StatusOr<Ids> programs = Walk(BPF_PROG_GET_NEXT_ID);
  if (!programs.ok()) return programs.status();
  absl::StatusOr<Ids> maps = Walk(BPF_MAP_GET_NEXT_ID);
  if (!maps.ok()) return maps.status();
  absl::StatusOr<Ids> links = Walk(BPF_LINK_GET_NEXT_ID);
  if (!links.ok()) return links.status();
  return KernelObjects{*std::move(programs), *std::move(maps),
                       *std::move(links)};
}

uint32_t IdOfProgram(int fd) {
  bpf_prog_info info{};
  return ReadInfo(fd, info) ? info.id : 0;
}

uint32_t IdOfMap(int fd) {
  bpf_map_info info{};
  return ReadInfo(fd, info) ? info.id : 0;
}

uint64_t MissedRuns(const std::set<uint32_t>& programs) {
  uint64_t missed = 0;
  for (const uint32_t id : programs) {
    bpf_attr attributes{};
    attributes.prog_id = id;
    const UniqueFd program(
        static_cast<int>(Bpf(BPF_PROG_GET_FD_BY_ID, attributes)));
    bpf_prog_info info{};
    if (program.valid() && ReadInfo(program.get(), info)) {
      missed += info.recursion_misses;
    }
  }
  return missed;
}

absl::StatusOr<KernelObjects> WaitUntilGone(const KernelObjects& objects,
                                            std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    absl::StatusOr<KernelObjects> now = ListKernelObjects();
    if (!now.ok()) return now.status();
    KernelObjects left = objects.Without(objects.Without(*now));
    if (left.empty() || std::chrono::steady_clock::now() >= deadline) {
      return left;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace bpfgrant::test

#include "daemon/loader/statistics.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/iterator.h"
#include "daemon/loader/object.h"

extern "C" const char bpfgrant_statistics_begin[];
extern "C" const char bpfgrant_statistics_end[];

namespace bpfgrant::daemon {
namespace {

constexpr char kPrograms[] = "statistics_programs";
constexpr char kRingBuffers[] = "statistics_ring_buffers";

// 0 if the kernel does not say.
uint64_t RunsOf(const UniqueFd& program) {
  bpf_prog_info info{};
  uint32_t size = sizeof(info);
  return bpf_prog_get_info_by_fd(program.get(), &info, &size) < 0
             ? 0
             : info.run_cnt;
}

template <typename Record>
const Record* Find(const std::vector<Record>& records, uint32_t id) {
  const auto found = std::lower_bound(
      records.begin(), records.end(), id,
      [](const Record& record, uint32_t wanted) { return record.id < wanted; });
  return found != records.end() && found->id == id ? &*found : nullptr;
}

}  // namespace

const bpfgrant_program_statistics* Activity::FindProgram(uint32_t id) const {
  return Find(programs, id);
}

const bpfgrant_ring_buffer_statistics* Activity::FindRingBuffer(
    uint32_t id) const {
  return Find(ring_buffers, id);
}

absl::StatusOr<Statistics> Statistics::Create() {
  auto object = OpenObject({bpfgrant_statistics_begin,
                            static_cast<size_t>(bpfgrant_statistics_end -
                                                bpfgrant_statistics_begin)},
                           "statistics");
  if (!object.ok()) return object.status();
  const LibbpfLog log;
  if (bpf_object__load(object->get()) < 0) {
    return absl::UnimplementedError(
        absl::StrCat(std::strerror(errno), "; ", log.LastLine()));
  }
  auto programs = AttachIterator(object->get(), kPrograms, log);
  if (!programs.ok()) return programs.status();
  auto ring_buffers = AttachIterator(object->get(), kRingBuffers, log);
  if (!ring_buffers.ok()) return ring_buffers.status();
  UniqueFd program(fcntl(bpf_program__fd(bpf_object__find_program_by_name(
                             object->get(), kPrograms)),
                         F_DUPFD_CLOEXEC, 0));
  if (!program.valid()) return absl::InternalError(std::strerror(errno));
  return Statistics(*std::move(programs), *std::move(ring_buffers),
                    std::move(program));
}

absl::StatusOr<Activity> Statistics::Take() const {
  Activity activity;
  const uint64_t before = RunsOf(program_);
  auto programs = ReadIterator<bpfgrant_program_statistics>(programs_.get());
  if (!programs.ok()) return programs.status();
  activity.counting = RunsOf(program_) != before;
  auto ring_buffers =
      ReadIterator<bpfgrant_ring_buffer_statistics>(ring_buffers_.get());
  if (!ring_buffers.ok()) return ring_buffers.status();
  activity.programs = *std::move(programs);
  activity.ring_buffers = *std::move(ring_buffers);
  return activity;
}

}  // namespace bpfgrant::daemon

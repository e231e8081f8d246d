#include "daemon/broker/activity.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "bpfgrant/daemon/statistics.pb.h"
#include "proto/wire/limits.h"

namespace bpfgrant::broker {
namespace {

// Looking takes a tenth of the loader's time at most, however much the machine
// has.
constexpr int kShare = 10;
// So that the pages of an answer are of one look.
constexpr std::chrono::milliseconds kLeastAge{100};

absl::StatusOr<daemon::StatisticsMessage> Parse(
    const std::vector<UniqueFd>& fds) {
  struct stat status {};
  if (fds.size() != 1 || fstat(fds.front().get(), &status) < 0 ||
      !S_ISREG(status.st_mode) || status.st_size == 0) {
    return absl::InternalError("the loader sent no statistics");
  }
  const auto size = static_cast<size_t>(status.st_size);
  void* bytes =
      mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fds.front().get(), 0);
  if (bytes == MAP_FAILED) {
    return absl::InternalError("cannot map the loader's statistics");
  }
  daemon::StatisticsMessage message;
  const bool parsed = message.ParseFromArray(bytes, static_cast<int>(size));
  munmap(bytes, size);
  if (!parsed) return absl::InternalError("the loader's statistics are none");
  return message;
}

}  // namespace

void Activity::Ask(Done done) {
  if (last_ != nullptr && Clock::now() < new_until_) {
    done(last_);
    return;
  }
  waiting_.push_back(std::move(done));
  if (waiting_.size() > 1) return;
  daemon::LoaderRequest request;
  request.mutable_statistics();
  loader_.Send(std::move(request), {}, kLoadDeadline,
               [this](absl::StatusOr<LoaderClient::Reply> reply) {
                 OnReply(std::move(reply));
               });
}

void Activity::OnReply(absl::StatusOr<LoaderClient::Reply> reply) {
  absl::StatusOr<ActivityReport> report =
      reply.ok() ? Read(*reply)
                 : absl::StatusOr<ActivityReport>(reply.status());
  const auto took = std::chrono::microseconds(
      reply.ok() ? reply->message.statistics().took_us() : 0);
  new_until_ =
      Clock::now() + std::max<Clock::duration>(took * (kShare - 1), kLeastAge);
  if (!report.ok()) {
    ActivityReport nothing;
    nothing.unavailable = std::string(report.status().message());
    report = std::move(nothing);
  }
  last_ = std::make_shared<const ActivityReport>(*std::move(report));
  // Those may ask again.
  const std::shared_ptr<const ActivityReport> answer = last_;
  for (Done& done : std::exchange(waiting_, {})) done(answer);
}

absl::StatusOr<ActivityReport> Activity::Read(
    const LoaderClient::Reply& reply) const {
  const auto message = Parse(reply.fds);
  if (!message.ok()) return message.status();
  ActivityReport report;
  report.at_ns = message->at_ns();
  report.counting = message->counting();
  report.programs = {message->program().begin(), message->program().end()};
  using Gate = std::pair<uint32_t, uint64_t>;
  absl::flat_hash_map<Gate, const daemon::StatisticsMessage::Instance*> by_gate;
  for (const auto& instance : message->instance()) {
    by_gate[Gate(instance.gate_slot(), instance.gate_nonce())] = &instance;
  }
  ledger_.Select([&](const Grant& grant) {
    const Gate gate(grant.instance.gate.slot, grant.instance.gate.nonce);
    const auto found = by_gate.find(gate);
    if (!grant.loaded || found == by_gate.end()) return false;
    v1::GrantActivity& activity = report.grants.emplace_back();
    activity.set_grant(grant.info.grant());
    activity.set_program(grant.info.program());
    activity.set_uid(grant.info.uid());
    activity.set_pid(grant.info.pid());
    activity.set_unit(grant.info.unit());
    const daemon::StatisticsMessage::Instance& instance = *found->second;
    if (instance.has_count()) *activity.mutable_count() = instance.count();
    for (const v1::RingBufferUse& use : instance.ring_buffer()) {
      *activity.add_ring_buffer() = use;
      auto& all = report.ring_buffers[{grant.info.program(), use.map()}];
      all.size_bytes += use.size_bytes();
      all.used_bytes += use.used_bytes();
      all.fullest = std::max(all.fullest,
                             use.size_bytes() == 0
                                 ? 0.0
                                 : static_cast<double>(use.used_bytes()) /
                                       static_cast<double>(use.size_bytes()));
    }
    return false;
  });
  return report;
}

}  // namespace bpfgrant::broker

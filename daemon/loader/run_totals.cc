#include "daemon/loader/run_totals.h"

#include <linux/bpf.h>

#include <algorithm>
#include <utility>

namespace bpfgrant::daemon {
namespace {

void AddTo(v1::RunCount& count, uint64_t runs, uint64_t run_ns,
           uint64_t misses) {
  count.set_runs(count.runs() + runs);
  count.set_run_ns(count.run_ns() + run_ns);
  count.set_recursion_misses(count.recursion_misses() + misses);
}

// Both positions may be whatever a client wrote there.
v1::RingBufferUse UseOf(const bpfgrant_ring_buffer_statistics& record,
                        const std::string& name) {
  v1::RingBufferUse use;
  use.set_map(name);
  use.set_size_bytes(record.mask + 1);
  use.set_used_bytes(
      std::min<uint64_t>(record.producer - record.consumer, record.mask + 1));
  use.set_user(record.type == BPF_MAP_TYPE_USER_RINGBUF);
  return use;
}

}  // namespace

void RunTotals::Add(const bpfgrant_program_statistics& now,
                    v1::RunCount& total) {
  Counted& counted = counted_[now.id];
  bpfgrant_program_statistics& last = counted.last;
  // An id may have come back with another program behind it.
  if (now.runs < last.runs || now.run_ns < last.run_ns ||
      now.misses < last.misses) {
    last = {};
  }
  AddTo(total, now.runs - last.runs, now.run_ns - last.run_ns,
        now.misses - last.misses);
  last = now;
  counted.seen = true;
}

StatisticsMessage RunTotals::Report(const Activity& activity,
                                    const ObjectRegister& objects,
                                    const std::vector<SharedProgram>& shared) {
  struct Program {
    uint32_t instances = 0;
    bool whole_machine = false;
  };
  std::map<std::string, Program> programs;
  StatisticsMessage message;
  message.set_counting(activity.counting);
  objects.ForEach([&](ObjectRegister::Gate gate, const std::string& name,
                      const ObjectIds& ids) {
    StatisticsMessage::Instance instance;
    for (const ObjectId& object : ids) {
      if (object.program) {
        const auto* found = activity.FindProgram(object.id);
        if (found == nullptr) continue;
        AddTo(*instance.mutable_count(), found->runs, found->run_ns,
              found->misses);
        Add(*found, total_[name]);
        ++programs[name].instances;
      } else if (const auto* ring = activity.FindRingBuffer(object.id)) {
        *instance.add_ring_buffer() = UseOf(*ring, object.name);
      }
    }
    if (!instance.has_count() && instance.ring_buffer().empty()) return;
    instance.set_gate_slot(gate.first);
    instance.set_gate_nonce(gate.second);
    *message.add_instance() = std::move(instance);
  });
  for (const SharedProgram& each : shared) {
    Program& program = programs[each.name];
    program.whole_machine = true;
    program.instances = 1;
    for (const uint32_t id : each.program_ids) {
      const auto* found = activity.FindProgram(id);
      if (found != nullptr) Add(*found, total_[each.name]);
    }
  }
  std::erase_if(counted_, [](const auto& entry) { return !entry.second.seen; });
  for (auto& [id, counted] : counted_) counted.seen = false;
  for (const auto& [name, total] : total_) {
    v1::ProgramActivity& program = *message.add_program();
    program.set_program(name);
    *program.mutable_count() = total;
    program.set_instances(programs[name].instances);
    program.set_whole_machine(programs[name].whole_machine);
  }
  return message;
}

}  // namespace bpfgrant::daemon

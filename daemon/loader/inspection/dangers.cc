#include "daemon/loader/inspection/dangers.h"

#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "daemon/loader/inspection/helpers.h"
#include "daemon/loader/inspection/inspection.h"

namespace bpfgrant::daemon {
namespace {

// Above this, a map is worth a thought: each grant has its own. Bytes.
constexpr uint64_t kLargeMap = uint64_t{16} << 20;

struct TypeDanger {
  std::string_view type;  // as libbpf names it
  std::string_view why;
};

constexpr TypeDanger kProgramDangers[] = {
    {"kprobe",
     "runs in the midst of the kernel or of other processes, for all "
     "of the machine"},
    {"tracepoint", "sees what every process of the machine does"},
    {"raw_tracepoint", "sees what every process of the machine does"},
    {"raw_tracepoint_writable",
     "sees what every process of the machine does, and changes it"},
    {"perf_event", "sees what every process of the machine does"},
    {"tracing", "sees what every process of the machine does"},
    {"lsm", "decides what every process of the machine may do"},
    {"ext", "takes the place of a function of another program"},
    {"syscall", "runs with the rights of whoever loaded it"},
    {"struct_ops", "takes the place of functions of the kernel"},
    {"xdp", "decides about every packet of a device"},
    {"sched_cls", "decides about every packet of a device"},
    {"sched_act", "decides about every packet of a device"},
    {"netfilter", "decides about every packet of the machine"},
    {"sk_lookup", "decides which socket of a network namespace gets a packet"},
    {"flow_dissector", "reads every packet of a network namespace"},
    {"cgroup_device", "decides which devices a cgroup may use"},
    {"cgroup_sysctl", "decides which settings a cgroup may change"},
    {"sock_ops", "changes the connections of a cgroup"},
    {kLoopType,
     "makes requests on the ring of whoever holds the grant, as "
     "many as its manifest allows"},
};

constexpr TypeDanger kMapDangers[] = {
    {"prog_array",
     "whoever writes it chooses what runs in the program's place"},
    {"perf_event_array", "its events are a CPU's, not a process's"},
    {"cgroup_storage", "belongs to a cgroup, and whoever shares that"},
};

template <size_t N>
std::string_view WhyOf(const TypeDanger (&table)[N], std::string_view type) {
  for (const TypeDanger& danger : table) {
    if (danger.type == type) return danger.why;
  }
  return "";
}

class Finder {
 public:
  explicit Finder(v1::Inspection& inspection) : inspection_(inspection) {}

  void Run() {
    if (!inspection_.btf()) {
      Add("", "no BTF",
          "nobody can tell what is in its maps, and admission refuses it");
    }
    for (const auto& program : inspection_.program()) LookAt(program);
    for (const auto& map : inspection_.map()) LookAt(map);
    if (!inspection_.followed()) {
      Add("", "too large to follow",
          "who reads and writes which map is only guessed from what is "
          "referred to");
    }
  }

 private:
  void Add(const std::string& where, std::string what, std::string_view why) {
    v1::Danger& danger = *inspection_.add_danger();
    danger.set_where(where);
    danger.set_what(std::move(what));
    danger.set_why(std::string(why));
  }

  void LookAt(const v1::InspectedProgram& program) {
    const std::string& name = program.name();
    if (const auto why = WhyOf(kProgramDangers, program.type()); !why.empty()) {
      Add(name, absl::StrCat("type ", program.type()), why);
    }
    // It is taken out by its structure, which the loader makes.
    if (!program.gate() && program.section() != kExecSection) {
      Add(name, "consults no gate",
          "nothing stops it once its fd was handed out, and admission refuses "
          "it");
    }
    if (program.sleepable() && program.type() != kLoopType) {
      Add(name, "can sleep", "no grace period waits for its end");
    }
    for (const std::string& helper : program.helper()) {
      if (const auto why = DangerOf(helper); !why.empty()) {
        Add(name, absl::StrCat("bpf_", helper), why);
      }
    }
    for (const std::string& kfunc : program.kfunc()) {
      if (program.type() == kLoopType) continue;
      Add(name, kfunc,
          "a function of the kernel's that can be another one, or gone, in "
          "the next");
    }
  }

  void LookAt(const v1::InspectedMap& map) {
    if (const auto why = WhyOf(kMapDangers, map.type()); !why.empty()) {
      Add(map.name(), absl::StrCat("type ", map.type()), why);
    }
    if (map.pinned()) {
      Add(map.name(), "asks to be pinned",
          "it is then shared with whoever finds it there, and admission "
          "refuses it");
    }
    if (map.bytes() > kLargeMap) {
      Add(map.name(), absl::StrCat(map.bytes() >> 20, " MiB"),
          "each grant has its own");
    }
  }

  // Of enrolled.bpf.h: what takes a process out when it executes another
  // program serves no grant.
  static constexpr std::string_view kExecSection = "tp_btf/sched_process_exec";

  v1::Inspection& inspection_;
};

}  // namespace

void AddDangers(v1::Inspection& inspection) { Finder(inspection).Run(); }

}  // namespace bpfgrant::daemon

#include "tests/bench/tracing_bench.h"

#include <bpf/bpf.h>
#include <liburing.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/admission.h"
#include "daemon/loader/gate_map.h"
#include "daemon/loader/kernel.h"
#include "daemon/loader/machine_program.h"
#include "daemon/loader/safe_file.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::bench {
namespace {

using daemon::MachineProgram;
using Clock = std::chrono::steady_clock;

constexpr int kRequests = 32'000;
constexpr int kRounds = 15;
constexpr uint32_t kOurs = 1;  // gate slots
constexpr uint32_t kOthers = 2;
constexpr uint64_t kNonce = 42;

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

double MicrosecondsOf(const std::function<void()>& what) {
  const auto began = Clock::now();
  what();
  return std::chrono::duration<double, std::micro>(Clock::now() - began)
      .count();
}

// Of this thread, so that it does not count who else is busy.
double ProcessorNanoseconds() {
  timespec spent{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
  return static_cast<double>(spent.tv_sec) * 1e9 +
         static_cast<double>(spent.tv_nsec);
}

// Nanoseconds for each of many NOPs, so many to one io_uring_enter(2).
double RunNops(io_uring& ring, int batch) {
  const double before = ProcessorNanoseconds();
  for (int done = 0; done < kRequests; done += batch) {
    for (int i = 0; i < batch; ++i) {
      io_uring_prep_nop(io_uring_get_sqe(&ring));
    }
    io_uring_submit_and_wait(&ring, static_cast<unsigned>(batch));
    io_uring_cq_advance(&ring, static_cast<unsigned>(batch));
  }
  return (ProcessorNanoseconds() - before) / kRequests;
}

UniqueFd PidfdOf(pid_t pid) {
  return UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
}

// Processes that do nothing.
class Idlers {
 public:
  explicit Idlers(int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t pid = fork();
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
      }
      pids_.push_back(pid);
      pidfds_.push_back(PidfdOf(pid));
    }
  }
  ~Idlers() {
    for (const pid_t pid : pids_) kill(pid, SIGKILL);
    for (const pid_t pid : pids_) waitpid(pid, nullptr, 0);
  }
  const std::vector<UniqueFd>& pidfds() const { return pidfds_; }

 private:
  std::vector<pid_t> pids_;
  std::vector<UniqueFd> pidfds_;
};

absl::StatusOr<std::unique_ptr<MachineProgram>> Load(int gate) {
  daemon::Mitigations mitigations;
  mitigations.file_safety = false;  // the build's folder
  const std::string file = "io_latency.manifest";
  auto folder = daemon::SafeDirectory::Open(BENCH_CATALOG, mitigations);
  if (!folder.ok()) return folder.status();
  std::ifstream from(absl::StrCat(BENCH_CATALOG, "/", file));
  const std::string bytes{std::istreambuf_iterator<char>(from), {}};
  auto admission =
      daemon::Admission::Create(daemon::ReadKernelFacts(), mitigations);
  if (!admission.ok()) return admission.status();
  const auto program = admission->Admit(*folder, file, bytes);
  if (!program->available()) {
    return absl::InternalError(program->entry.description().refusal());
  }
  static daemon::FdStore store;  // keeps nothing
  return MachineProgram::Load(*program, {.gate = gate}, mitigations, store);
}

class Bench {
 public:
  Bench(MachineProgram& program, int gate) : program_(program), idlers_(1000) {
    for (const uint32_t slot : {kOurs, kOthers}) {
      bpf_map_update_elem(gate, &slot, &kNonce, BPF_ANY);
    }
    io_uring_queue_init(64, &ring_, 0);
  }
  ~Bench() { io_uring_queue_exit(&ring_); }

  void CostOfRequests(int batch) {
    std::vector<double> none, one, thousand, ours;
    for (int round = 0; round < kRounds; ++round) {
      none.push_back(RunNops(ring_, batch));
      one.push_back(WithOthers(1, batch));
      thousand.push_back(WithOthers(1000, batch));
      Enroll(self_, kOurs);
      ours.push_back(RunNops(ring_, batch));
      program_.Dismiss(self_.get());
    }
    std::printf("a NOP, %d to an io_uring_enter\n", batch);
    Print("nobody is served: no program", none, none);
    Print("one other process is", one, none);
    Print("1000 others are", thousand, none);
    Print("this process is", ours, none);
  }

  void CostOfGrants() {
    std::vector<double> add, enroll, second, leave, last, remove;
    const UniqueFd& other = idlers_.pidfds().front();
    for (int round = 0; round < kRounds; ++round) {
      add.push_back(MicrosecondsOf(
          [&] { (void)program_.AddMaps(kOurs, daemon::Mitigations()); }));
      enroll.push_back(MicrosecondsOf([&] { Enroll(self_, kOurs); }));
      second.push_back(MicrosecondsOf([&] { Enroll(other, kOthers); }));
      leave.push_back(MicrosecondsOf([&] { program_.Dismiss(other.get()); }));
      last.push_back(MicrosecondsOf([&] { program_.Dismiss(self_.get()); }));
      remove.push_back(MicrosecondsOf([&] { program_.RemoveMaps(kOurs); }));
    }
    (void)program_.AddMaps(kOurs, daemon::Mitigations());
    std::printf("a grant of io_latency, microseconds\n");
    for (const auto& [what, times] :
         {std::pair("making its maps", &add),
          std::pair("enrolling the first process, which attaches", &enroll),
          std::pair("enrolling another", &second),
          std::pair("dismissing it", &leave),
          std::pair("dismissing the last one, which detaches", &last),
          std::pair("removing the maps", &remove)}) {
      std::printf("  %-52s %9.0f\n", what, Median(*times));
    }
  }

 private:
  static void Print(const char* what, const std::vector<double>& rounds,
                    const std::vector<double>& baseline) {
    std::printf("  %-52s %9.1f ns  %5.2fx\n", what, Median(rounds),
                Median(rounds) / Median(baseline));
  }
  void Enroll(const UniqueFd& pidfd, uint32_t slot) {
    if (auto status = program_.Enroll(pidfd.get(), slot, kNonce);
        !status.ok()) {
      std::printf("%s\n", status.ToString().c_str());
    }
  }
  double WithOthers(size_t count, int batch) {
    for (size_t i = 0; i < count; ++i) Enroll(idlers_.pidfds()[i], kOthers);
    const double cost = RunNops(ring_, batch);
    for (size_t i = 0; i < count; ++i) {
      program_.Dismiss(idlers_.pidfds()[i].get());
    }
    return cost;
  }

  MachineProgram& program_;
  Idlers idlers_;
  const UniqueFd self_ = PidfdOf(getpid());
  io_uring ring_{};
};

}  // namespace

void MeasureRequests() {
  auto gate = daemon::GateMap::Create();
  if (!gate.ok()) return;
  auto program = Load(gate->fd());
  if (!program.ok()) {
    std::printf("io_latency: %s\n", program.status().ToString().c_str());
    return;
  }
  Bench bench(**program, gate->fd());
  bench.CostOfGrants();
  bench.CostOfRequests(1);
  bench.CostOfRequests(32);
}

}  // namespace bpfgrant::bench

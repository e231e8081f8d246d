// top: what programs and grants do, live.

#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "bpfgrant/v1/metrics.pb.h"
#include "client/bpfgrantctl/activity_rates.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "client/bpfgrantctl/screen.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::ctl {
namespace {

struct TopOptions {
  double interval_seconds = 1;
  bool once = false;
  uint64_t count = 0;
};

// Has the kernel count runs for as long as the fd is open. Takes
// CAP_SYS_ADMIN; invalid without it, and then it depends on others whether
// runs are counted.
UniqueFd CountRuns() {
  bpf_attr attributes{};
  attributes.enable_stats.type = BPF_STATS_RUN_TIME;
  return UniqueFd(static_cast<int>(
      syscall(SYS_bpf, BPF_ENABLE_STATS, &attributes, sizeof(attributes))));
}

// In five columns at most.
std::string Short(double value) {
  for (const char* unit : {"", "k", "M", "G"}) {
    if (value < 9.995) return absl::StrFormat("%.2f%s", value, unit);
    if (value < 999.5) return absl::StrFormat("%.0f%s", value, unit);
    value /= 1000;
  }
  return absl::StrFormat("%.0fT", value);
}

std::string Duration(double ns) {
  if (ns <= 0) return "-";
  if (ns < 999.5) return absl::StrFormat("%.0fns", ns);
  if (ns < 999.5e3) return absl::StrFormat("%.3gus", ns / 1e3);
  if (ns < 999.5e6) return absl::StrFormat("%.3gms", ns / 1e6);
  return absl::StrFormat("%.3gs", ns / 1e9);
}

std::string Percent(double part) {
  return absl::StrFormat("%.1f%%", 100 * part);
}

// At most `width` columns; what is cut ends with "~".
std::string Cut(const std::string& text, size_t width) {
  const std::string shown = Escape(text);
  return shown.size() <= width ? shown : shown.substr(0, width - 1) + "~";
}

// The fullest.
std::string Fill(const v1::GrantRate& grant) {
  const v1::RingBufferUse* fullest = nullptr;
  double most = -1;
  for (const v1::RingBufferUse& use : grant.ring_buffer()) {
    const double part = use.size_bytes() == 0
                            ? 0
                            : static_cast<double>(use.used_bytes()) /
                                  static_cast<double>(use.size_bytes());
    if (part <= most) continue;
    most = part;
    fullest = &use;
  }
  if (fullest == nullptr) return "-";
  return absl::StrCat(Percent(most), " ", Cut(fullest->map(), 15));
}

std::string Heading(const v1::ActivityRates& rates) {
  if (!rates.unavailable().empty()) {
    return Escape(
        absl::StrCat("This kernel does not tell: ", rates.unavailable()));
  }
  return absl::StrFormat(
      "%d programs, %d grants, over %.1f s. Runs are %s.", rates.program_size(),
      rates.grant_size(), rates.seconds(),
      rates.counting() ? "counted"
                       : "NOT counted: run it as root, or set "
                         "kernel.bpf_stats_enabled");
}

// Eighty columns.
std::vector<std::string> Lines(const v1::ActivityRates& rates) {
  std::vector<std::string> lines = {Heading(rates), ""};
  lines.push_back(absl::StrFormat("%-32s %9s %8s %8s %7s %9s", "PROGRAM",
                                  "INSTANCES", "RUNS/S", "TIME/RUN", "CPU",
                                  "MISSES/S"));
  for (const v1::ProgramRate& program : rates.program()) {
    const v1::Rate& rate = program.rate();
    lines.push_back(absl::StrFormat(
        "%-32s %9s %8s %8s %7s %9s", Cut(program.program(), 32),
        program.whole_machine() ? "machine" : absl::StrCat(program.instances()),
        rates.counting() ? Short(rate.runs_per_second()) : "-",
        Duration(rate.ns_per_run()), Percent(rate.processors()),
        Short(rate.misses_per_second())));
  }
  lines.push_back("");
  lines.push_back(absl::StrFormat("%7s %-20s %6s %7s %7s %8s  %s", "GRANT",
                                  "PROGRAM", "UID", "PID", "RUNS/S", "TIME/RUN",
                                  "FULLEST BUFFER"));
  for (const v1::GrantRate& grant : rates.grant()) {
    const bool counted = grant.has_rate() && rates.counting();
    lines.push_back(
        absl::StrFormat("%7d %-20s %6d %7d %7s %8s  %s", grant.grant(),
                        Cut(grant.program(), 20), grant.uid(), grant.pid(),
                        counted ? Short(grant.rate().runs_per_second()) : "-",
                        Duration(grant.rate().ns_per_run()), Fill(grant)));
  }
  return lines;
}

absl::Status PrintPlain(const Settings& settings,
                        const v1::ActivityRates& rates, bool first) {
  if (settings.json) return PrintJson(rates, Layout::kOneLine);
  if (!first) std::printf("\n");
  for (const std::string& line : Lines(rates)) {
    std::printf("%s\n", line.c_str());
  }
  return absl::OkStatus();
}

absl::StatusOr<int> Top(const Settings& settings, const TopOptions& options) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const UniqueFd counting = CountRuns();
  auto before = connection->Activity();
  if (!before.ok()) return before.status();
  const auto interval = std::chrono::ceil<std::chrono::milliseconds>(
      std::chrono::duration<double>(options.interval_seconds));
  const uint64_t count = options.once ? 1 : options.count;
  std::optional<Screen> screen;
  if (!settings.json && count == 0 && Screen::IsThere()) screen.emplace();
  for (uint64_t i = 0; count == 0 || i < count; ++i) {
    if (!screen.has_value()) {
      std::this_thread::sleep_for(interval);
    } else if (!screen->Wait(interval)) {
      return kOk;
    }
    auto after = connection->Activity();
    if (!after.ok()) {
      screen.reset();
      return after.status();
    }
    const v1::ActivityRates rates = RatesBetween(*before, *after);
    if (screen.has_value()) {
      screen->Draw(Lines(rates));
    } else if (absl::Status printed = PrintPlain(settings, rates, i == 0);
               !printed.ok()) {
      return printed;
    }
    // Whoever reads a pipe wants each when it is there. What cannot be written
    // main reports.
    if (std::fflush(stdout) != 0) return kInternal;
    before = std::move(after);
  }
  return kOk;
}

}  // namespace

void AddTop(CLI::App& app, Command& command) {
  const auto options = std::make_shared<TopOptions>();
  CLI::App* top = AddVerb(
      app, command, "top",
      "What programs and grants do, live; q ends it; for administrators",
      [options](const Settings& settings) { return Top(settings, *options); });
  top->add_option("--interval", options->interval_seconds,
                  "between two looks (default: 1)")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.2, 3600.0));
  top->add_flag("--once", options->once, "one interval, printed");
  top->add_option("--count", options->count, "so many of them, printed")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
}

}  // namespace bpfgrant::ctl

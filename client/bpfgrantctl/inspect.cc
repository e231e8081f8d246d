// inspect: what is in a BPF object, without the daemon and without privilege.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "daemon/loader/inspection/inspection.h"

namespace bpfgrant::ctl {
namespace {

std::string Join(const google::protobuf::RepeatedPtrField<std::string>& names) {
  return absl::StrJoin(names, " ");
}

void Heading(const char* text) {
  std::printf("\n%s\n", Paint(Style::kHeading, text).c_str());
}

void PrintFile(const v1::Inspection& inspection) {
  Sheet sheet;
  sheet.Add("file", inspection.file());
  sheet.Add("size", Bytes(inspection.bytes()));
  sheet.Add("sha256", inspection.sha256());
  sheet.Add("license", inspection.license());
  sheet.Add("BTF", YesNo(inspection.btf()));
  sheet.Add("memory of maps",
            absl::StrCat("about ", Bytes(inspection.map_bytes())));
  sheet.Print();
}

void PrintProgram(const v1::InspectedProgram& program) {
  Heading(Escape(absl::StrCat("program ", program.name())).c_str());
  Sheet sheet;
  sheet.Add("type", program.attach().empty()
                        ? program.type()
                        : absl::StrCat(program.type(), ", attached as ",
                                       program.attach()));
  sheet.Add("section", program.section());
  sheet.Add("size", Count(program.instructions(), "instruction"));
  sheet.Add("gate", program.gate() ? Cell("consulted", Style::kGood)
                                   : Cell("not consulted", Style::kBad));
  sheet.Add("can sleep", YesNo(program.sleepable()));
  sheet.Add("calls", Join(program.function()));
  sheet.Add("helpers", Join(program.helper()));
  sheet.Add("kfuncs", Join(program.kfunc()));
  sheet.Add("reads", Join(program.reads()));
  sheet.Add("writes", Join(program.writes()));
  if (!program.holder().empty())
    sheet.Add("its fd's holder can", program.holder());
  sheet.Print();
}

std::string SizeOf(const v1::InspectedMap& map) {
  return absl::StrCat(Bytes(map.bytes()), map.per_cpu() ? " a CPU" : "");
}

void PrintMaps(const v1::Inspection& inspection) {
  if (inspection.map().empty()) return;
  Heading("maps");
  Table table({"MAP", "TYPE", "KEY", "VALUE", "ENTRIES", "MEMORY", "FLAGS",
               "READ BY", "WRITTEN BY"});
  for (const v1::InspectedMap& map : inspection.map()) {
    table.Add({map.name(),
               map.has_inner()
                   ? absl::StrCat(map.type(), " of ", map.inner().type())
                   : map.type(),
               absl::StrCat(map.key_size()), absl::StrCat(map.value_size()),
               absl::StrCat(map.max_entries()), SizeOf(map), Join(map.flag()),
               Join(map.reader()), Join(map.writer())});
  }
  table.Print();
}

void PrintHolders(const v1::Inspection& inspection) {
  Table table({"MAP", "WHAT ITS FD'S HOLDER CAN DO"});
  bool any = false;
  for (const v1::InspectedMap& map : inspection.map()) {
    if (map.section()) continue;
    any = true;
    table.Add({map.name(), map.holder()});
  }
  if (!any) return;
  std::printf("\n");
  table.Print();
}

void PrintGlobals(const v1::Inspection& inspection) {
  if (inspection.global().empty()) return;
  Heading("globals");
  Table table({"NAME", "SECTION", "SIZE", "CONSTANT"});
  for (const v1::InspectedGlobal& global : inspection.global()) {
    table.Add({global.name(), global.section(), absl::StrCat(global.size()),
               YesNo(global.constant())});
  }
  table.Print();
}

void PrintDangers(const v1::Inspection& inspection) {
  Heading("dangers");
  if (inspection.danger().empty()) {
    std::printf("None that is known.\n");
    return;
  }
  Table table({"WHERE", "WHAT", "WHY"});
  for (const v1::Danger& danger : inspection.danger()) {
    table.Add(
        {danger.where(), Cell(danger.what(), Style::kDoubtful), danger.why()});
  }
  table.Print();
}

absl::StatusOr<int> Inspect(const Settings& settings, const std::string& file) {
  const auto inspection = daemon::InspectFile(file, settings.Timeout());
  if (!inspection.ok()) return inspection.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*inspection);
    if (!printed.ok()) return printed;
    return kOk;
  }
  PrintFile(*inspection);
  for (const v1::InspectedProgram& program : inspection->program()) {
    PrintProgram(program);
  }
  PrintMaps(*inspection);
  PrintHolders(*inspection);
  PrintGlobals(*inspection);
  PrintDangers(*inspection);
  return kOk;
}

}  // namespace

void AddInspect(CLI::App& app, Command& command) {
  const auto file = std::make_shared<std::string>();
  CLI::App* verb = AddVerb(
      app, command, "inspect",
      "What is in a BPF object and what in it is dangerous; needs no "
      "daemon and no privilege",
      [file](const Settings& settings) { return Inspect(settings, *file); });
  verb->add_option("FILE", *file, "the object, as clang made it")
      ->required()
      ->check(CheckText);
}

}  // namespace bpfgrant::ctl

// The verbs that look at grants: grants, watch.

#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/bpfgrantctl/command.h"
#include "client/bpfgrantctl/json.h"
#include "client/bpfgrantctl/output.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::ctl {
namespace {

std::string DeliveryName(v1::Delivery delivery) {
  switch (delivery) {
    case v1::DELIVERY_PROGRAM:
      return "PROGRAM";
    case v1::DELIVERY_ATTACH:
      return "ATTACH";
    case v1::DELIVERY_RING:
      return "RING";
    case v1::DELIVERY_PROCESS:
      return "PROCESS";
    default:
      return "";
  }
}

// "live", or why it ended and what the kernel still has of it.
Cell StateOf(const v1::GrantInfo& grant) {
  if (grant.ended() == v1::REASON_UNSPECIFIED) return "live";
  return Cell(absl::StrCat(ReasonName(grant.ended()), ", still held",
                           grant.held().empty() ? "" : ": ", grant.held()),
              Style::kDoubtful);
}

absl::StatusOr<int> Grants(const Settings& settings) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  const auto reply = connection->Grants();
  if (!reply.ok()) return reply.status();
  if (settings.json) {
    const absl::Status printed = PrintJson(*reply);
    return printed.ok() ? absl::StatusOr<int>(kOk) : printed;
  }
  Table table({"GRANT", "PROGRAM", "INTERFACE", "DIGEST", "UID", "USER", "PID",
               "SESSION", "DELIVERY", "CLAIMED", "BEGAN", "AGE", "RULE", "UNIT",
               "STATE"});
  for (const v1::GrantInfo& grant : reply->grant()) {
    table.Add({absl::StrCat(grant.grant()), grant.program(), grant.interface(),
               ShortDigest(grant.digest()), absl::StrCat(grant.uid()),
               UserName(grant.uid()), absl::StrCat(grant.pid()),
               absl::StrCat(grant.session()), DeliveryName(grant.delivery()),
               grant.claimed() ? "yes" : "no", LocalTime(grant.began_unix_ms()),
               Age(grant.began_unix_ms()), grant.rule(), grant.unit(),
               StateOf(grant)});
  }
  table.Print();
  return kOk;
}

std::string DescribeGrant(const v1::GrantInfo& grant) {
  std::vector<std::string> words = {
      absl::StrCat("grant ", grant.grant()), grant.program(),
      absl::StrCat("uid ", grant.uid()), absl::StrCat("pid ", grant.pid())};
  if (grant.delivery() != v1::DELIVERY_ANY) {
    words.push_back(DeliveryName(grant.delivery()));
  }
  if (!grant.rule().empty()) words.push_back("rule " + grant.rule());
  if (!grant.unit().empty()) words.push_back("unit " + grant.unit());
  return absl::StrJoin(words, "  ");
}

void PrintEvent(const v1::Event& event) {
  std::string what = absl::StrCat("event ", static_cast<int>(event.type()));
  Style style = Style::kPlain;
  if (event.type() == v1::Event::TYPE_GRANT_BEGAN) {
    what = "began   ";
    style = Style::kGood;
  } else if (event.type() == v1::Event::TYPE_GRANT_ENDED) {
    what = "ended   ";
    style = Style::kDoubtful;
  } else if (event.type() == v1::Event::TYPE_RELOADED) {
    what = "reloaded";
    style =
        event.reason() == v1::REASON_UNSPECIFIED ? Style::kPlain : Style::kBad;
  }
  std::string line =
      absl::StrCat(LocalTime(event.at_unix_ms()), "  ", Paint(style, what));
  if (event.has_grant()) {
    absl::StrAppend(&line, "  ", Escape(DescribeGrant(event.grant())));
  }
  if (event.reason() != v1::REASON_UNSPECIFIED) {
    absl::StrAppend(&line, "  ", ReasonName(event.reason()));
  }
  if (!event.message().empty()) {
    absl::StrAppend(&line, "  ", Escape(event.message()));
  }
  std::printf("%s\n", line.c_str());
}

absl::StatusOr<int> Watch(const Settings& settings, uint64_t count) {
  auto connection = Connect(settings);
  if (!connection.ok()) return connection.status();
  if (absl::Status status = connection->Watch(); !status.ok()) return status;
  uint64_t seen = 0;
  while (count == 0 || seen < count) {
    const auto event = connection->WaitEvent(std::chrono::hours(1));
    if (absl::IsDeadlineExceeded(event.status())) continue;
    if (!event.ok()) return event.status();
    ++seen;
    if (settings.json) {
      const absl::Status printed = PrintJson(*event, Layout::kOneLine);
      if (!printed.ok()) return printed;
    } else {
      PrintEvent(*event);
    }
    // Whoever reads a pipe wants each event when it happens. What cannot be
    // written main reports.
    if (std::fflush(stdout) != 0) return kInternal;
  }
  return kOk;
}

}  // namespace

void AddGrantVerbs(CLI::App& app, Command& command) {
  AddVerb(app, command, "grants",
          "Grants that live, or ended and are still held: your own user's; for "
          "an administrator, all",
          Grants);
  const auto count = std::make_shared<uint64_t>(0);
  AddVerb(app, command, "watch",
          "Grants that begin and end from now on, and reloads",
          [count](const Settings& settings) { return Watch(settings, *count); })
      ->add_option("--count", *count, "end after that many events")
      ->type_name("N")
      ->check([](const std::string& text) {
        return text == "0" ? std::string("that would be none") : std::string();
      });
}

}  // namespace bpfgrant::ctl

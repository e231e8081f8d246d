// The policy as a table: all programs by all users and groups that it names.

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "bpfgrant/v1/messages.pb.h"
#include "policy/policy.h"

namespace bpfgrant::policy {
namespace {

// No user and no group: the kernel has none of this number.
constexpr uid_t kNobodyNamed = static_cast<uid_t>(-1);

struct Row {
  std::string name;
  Subject subject;
};

Row RowOf(std::string name, uid_t uid, gid_t gid) {
  Row row;
  row.name = std::move(name);
  row.subject.uid = uid;
  row.subject.gid = gid;
  return row;
}

std::vector<Row> RowsOf(absl::Span<const Rule> rules) {
  std::set<uint32_t> uids;
  std::set<uint32_t> gids;
  for (const Rule& rule : rules) {
    uids.insert(rule.source().uid().begin(), rule.source().uid().end());
    gids.insert(rule.source().gid().begin(), rule.source().gid().end());
  }
  std::vector<Row> rows;
  for (const uint32_t uid : uids) {
    rows.push_back(RowOf(absl::StrCat("user ", uid), uid, kNobodyNamed));
  }
  for (const uint32_t gid : gids) {
    rows.push_back(RowOf(absl::StrCat("group ", gid), kNobodyNamed, gid));
  }
  rows.push_back(RowOf("anybody else", kNobodyNamed, kNobodyNamed));
  return rows;
}

}  // namespace

void Rules::AddCells(const Subject& subject, const v1::MatrixCell& like,
                     v1::MatrixReply& reply) const {
  const auto add = [&](v1::Verdict verdict, std::string condition) {
    v1::MatrixCell& cell = *reply.add_cell();
    cell = like;
    *cell.mutable_verdict() = std::move(verdict);
    cell.set_condition(std::move(condition));
  };
  for (const Rule& rule : rules_) {
    if (!rule.decides() || !rule.IsAbout(like.program()) ||
        !rule.NamesUser(subject)) {
      continue;
    }
    std::string condition = rule.Conditions();
    const bool decides = condition.empty();
    add(VerdictOf(rule, nullptr), std::move(condition));
    if (decides) return;
  }
  add(DefaultVerdict(), "");
}

v1::MatrixReply Rules::Matrix(absl::Span<const std::string> programs,
                              uint32_t after, size_t bytes) const {
  v1::MatrixReply reply;
  const std::vector<Row> rows = RowsOf(rules_);
  const uint64_t end = uint64_t{rows.size()} * programs.size();
  for (uint64_t at = after; at < end; ++at) {
    if (reply.ByteSizeLong() > bytes) {
      reply.set_next(static_cast<uint32_t>(at));
      break;
    }
    const Row& row = rows[at / programs.size()];
    v1::MatrixCell cell;
    cell.set_subject(row.name);
    cell.set_program(programs[at % programs.size()]);
    AddCells(row.subject, cell, reply);
  }
  return reply;
}

}  // namespace bpfgrant::policy

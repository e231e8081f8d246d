#include "daemon/broker/bus_requests.h"

#include <cstring>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "daemon/broker/bus_limits.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {
namespace {

absl::Status Invalid(std::string_view what) {
  return Refuse(v1::REASON_INVALID_ARGUMENT, what);
}

absl::StatusOr<uint32_t> ReadNumber(sd_bus_message* message) {
  uint32_t number = 0;
  if (sd_bus_message_read(message, "u", &number) <= 0) {
    return Invalid("a number is missing");
  }
  return number;
}

absl::Status ReadGroups(sd_bus_message* message, v1::Subject& subject) {
  if (sd_bus_message_enter_container(message, 'a', "u") <= 0) {
    return Invalid("groups are an array of numbers");
  }
  for (uint32_t group; sd_bus_message_read(message, "u", &group) > 0;) {
    if (static_cast<size_t>(subject.group_size()) == kMaxBusGroups) {
      return Invalid("too many groups");
    }
    subject.add_group(group);
  }
  sd_bus_message_exit_container(message);
  return absl::OkStatus();
}

struct NumberKey {
  std::string_view name;
  void (v1::Subject::*set)(uint32_t);
};
constexpr NumberKey kNumbers[] = {{"uid", &v1::Subject::set_uid},
                                  {"gid", &v1::Subject::set_gid}};

struct WordKey {
  std::string_view name;
  std::string* (v1::Subject::*field)();
};
const WordKey kWords[] = {{"cgroup", &v1::Subject::mutable_cgroup},
                          {"label", &v1::Subject::mutable_label},
                          {"executable", &v1::Subject::mutable_executable},
                          {"sha256", &v1::Subject::mutable_sha256},
                          {"fsverity", &v1::Subject::mutable_fsverity}};

// What is inside the variant behind `key`.
absl::Status ReadFact(sd_bus_message* message, const std::string& key,
                      v1::ExplainRequest& request) {
  if (key == "pid") {
    const absl::StatusOr<uint32_t> pid = ReadNumber(message);
    if (pid.ok()) request.set_pid(*pid);
    return pid.status();
  }
  v1::Subject& subject = *request.mutable_subject();
  if (key == "groups") return ReadGroups(message, subject);
  for (const NumberKey& each : kNumbers) {
    if (each.name != key) continue;
    const absl::StatusOr<uint32_t> number = ReadNumber(message);
    if (number.ok()) (subject.*each.set)(*number);
    return number.status();
  }
  for (const WordKey& each : kWords) {
    if (each.name != key) continue;
    absl::StatusOr<std::string> word = ReadWord(message);
    if (word.ok()) *(subject.*each.field)() = *std::move(word);
    return word.status();
  }
  return Invalid(
      absl::StrCat("'", key,
                   "' is none of pid, uid, gid, groups, cgroup, label, "
                   "executable, sha256, fsverity"));
}

}  // namespace

absl::StatusOr<std::string> ReadWord(sd_bus_message* message) {
  const char* text = nullptr;
  if (sd_bus_message_read(message, "s", &text) <= 0) {
    return Invalid("a string is missing");
  }
  const size_t bytes = strnlen(text, kMaxBusWordBytes + 1);
  if (bytes > kMaxBusWordBytes) return Invalid("a string is too long");
  return std::string(text, bytes);
}

absl::StatusOr<bool> ReadBool(sd_bus_message* message) {
  int value = 0;
  if (sd_bus_message_read(message, "b", &value) <= 0) {
    return Invalid("a boolean is missing");
  }
  return value != 0;
}

absl::StatusOr<v1::RevokeRequest> ReadRevoke(sd_bus_message* message) {
  const absl::StatusOr<std::string> by = ReadWord(message);
  if (!by.ok()) return by.status();
  const absl::StatusOr<std::string> value = ReadWord(message);
  if (!value.ok()) return value.status();
  v1::RevokeRequest request;
  uint64_t grant = 0;
  uint32_t uid = 0;
  if (*by == "grant" && absl::SimpleAtoi(*value, &grant)) {
    request.set_grant(grant);
  } else if (*by == "uid" && absl::SimpleAtoi(*value, &uid)) {
    request.set_uid(uid);
  } else if (*by == "program" && !value->empty()) {
    request.set_program(*value);
  } else if (*by == "digest" && !value->empty()) {
    request.set_digest(*value);
  } else if (*by == "unit" && !value->empty()) {
    request.set_unit(*value);
  } else if (*by == "all" && value->empty()) {
    request.set_all(true);
  } else {
    return Invalid(
        "say what to revoke: grant, program, digest, uid or unit with its "
        "value, or all with an empty one");
  }
  return request;
}

absl::StatusOr<v1::ExplainRequest> ReadExplain(sd_bus_message* message) {
  v1::ExplainRequest request;
  absl::StatusOr<std::string> program = ReadWord(message);
  if (!program.ok()) return program.status();
  request.set_program(*std::move(program));
  if (sd_bus_message_enter_container(message, 'a', "{sv}") <= 0) {
    return Invalid("whom it is about is a dictionary");
  }
  absl::flat_hash_set<std::string> seen;
  while (sd_bus_message_enter_container(message, 'e', "sv") > 0) {
    const absl::StatusOr<std::string> key = ReadWord(message);
    if (!key.ok()) return key.status();
    if (!seen.insert(*key).second) {
      return Invalid(absl::StrCat("'", *key, "' is said twice"));
    }
    char type = 0;
    const char* contents = nullptr;
    if (sd_bus_message_peek_type(message, &type, &contents) <= 0 ||
        type != 'v' ||
        sd_bus_message_enter_container(message, 'v', contents) <= 0) {
      return Invalid(absl::StrCat("'", *key, "' has no value"));
    }
    if (absl::Status fact = ReadFact(message, *key, request); !fact.ok()) {
      return fact;
    }
    if (sd_bus_message_exit_container(message) < 0 ||
        sd_bus_message_exit_container(message) < 0) {
      return Invalid(absl::StrCat("'", *key, "' has a value of another type"));
    }
  }
  sd_bus_message_exit_container(message);
  return request;
}

}  // namespace bpfgrant::broker

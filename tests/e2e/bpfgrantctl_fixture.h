// bpfgrantctl, executed as root and as nobody, with a daemon.

#ifndef TESTS_E2E_BPFGRANTCTL_FIXTURE_H_
#define TESTS_E2E_BPFGRANTCTL_FIXTURE_H_

#include <fcntl.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "bpfgrant/v1/messages.pb.h"
#include "client/bpfgrant/connection.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "tests/harness/daemon_fixture.h"
#include "tests/harness/unprivileged.h"

namespace bpfgrant::test {

using Words = std::vector<std::string>;

inline constexpr int kRefused = 1, kUsage = 2, kUnreachable = 3, kInternal = 4;

// Root may have all; nobody may sample, and may not steer.
inline constexpr char kPolicy[] = R"(
rule {
  name: "root"
  effect: ALLOW
  user: "0"
  program: "*"
  quota { grants: 64 }
  trusted: true
}
rule {
  name: "sampler-for-nobody"
  effect: ALLOW
  user: "65534"
  program: "packet_sampler"
  quota { grants: 4 }
}
rule {
  name: "no-steering"
  effect: DENY
  user: "65534"
  program: "reuseport_steer"
}
)";

inline std::string Tool() {
  const char* given = std::getenv("BPFGRANT_TEST_CTL");
  return given != nullptr ? given : BPFGRANTCTL_PATH;
}

// Root is an administrator by its uid: the tool needs no capability.
inline UnprivilegedOptions AsRoot() {
  UnprivilegedOptions options;
  options.uid = 0;
  options.gid = 0;
  return options;
}

inline std::vector<std::string> LinesOf(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

inline std::vector<std::string> FieldsOf(const std::string& line) {
  return absl::StrSplit(line, ' ', absl::SkipEmpty());
}

template <typename Message>
Message FromJson(const std::string& json) {
  Message message;
  const auto status =
      google::protobuf::util::JsonStringToMessage(json, &message);
  EXPECT_TRUE(status.ok()) << status.ToString() << "\n" << json;
  return message;
}

// The reason in {"refusal": {...}}.
inline std::string RefusalIn(const std::string& json) {
  const auto object = FromJson<google::protobuf::Struct>(json);
  const auto refusal = object.fields().find("refusal");
  if (refusal == object.fields().end()) return "";
  return refusal->second.struct_value().fields().at("reason").string_value();
}

class BpfgrantctlTest : public DaemonTest {
 protected:
  void SetUp() override {
    DaemonTest::SetUp();
    if (IsSkipped()) return;
    DaemonOptions options;
    options.policy = kPolicy;
    options.programs = kTwoPrograms;
    ASSERT_TRUE(StartDaemon(options));
  }

  Words WithSocket(Words words) {
    words.insert(words.end(), {"--socket", daemon().broker_socket()});
    return words;
  }
  Outcome Root(const Words& words) {
    return RunUnprivileged(Tool(), WithSocket(words), AsRoot());
  }
  Outcome Nobody(const Words& words) {
    return RunUnprivileged(Tool(), WithSocket(words));
  }

  // A session of this process's, which is root's.
  Connection Connect() {
    auto connection = Connection::Connect({.path = daemon().broker_socket()});
    EXPECT_TRUE(connection.ok()) << connection.status();
    return *std::move(connection);
  }
  Grant Acquire(Connection& connection) {
    auto grant = connection.Acquire(
        {.program = "packet_sampler", .interface = "packet_sampler/1"});
    EXPECT_TRUE(grant.ok()) << grant.status();
    return *std::move(grant);
  }
};

}  // namespace bpfgrant::test

#endif  // TESTS_E2E_BPFGRANTCTL_FIXTURE_H_

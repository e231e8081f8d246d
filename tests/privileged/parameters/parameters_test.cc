// Values of parameters, asked for by a client without privilege: rightly,
// wrongly, twice, at once, too often.

#include <bpf/bpf.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "client/bpfgrant/parameter.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/as_nobody.h"
#include "tests/privileged/parameters/chosen.h"

namespace bpfgrant::test {
namespace {

using ::testing::HasSubstr;
using Values = std::vector<v1::ParameterValue>;

// The catalog of a daemon that NobodyTest starts itself.
[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", PARAMETERS_CATALOG, /*replace=*/1);

// What an entry that must be given is given.
const v1::ParameterValue kNumber = IntegerParameter("number", 77);

class ParametersTest : public NobodyTest {
 protected:
  ParametersTest() : NobodyTest("chosen") {}

  absl::StatusOr<Grant> Acquire(Values values) {
    return connection().Acquire({.program = "chosen",
                                 .interface = "chosen/1",
                                 .parameters = std::move(values)});
  }
  // What the program of a grant has, shown by a packet.
  chosen_seen See(const Grant& grant) {
    chosen_seen seen{};
    int pair[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    const UniqueFd one(pair[0]), other(pair[1]);
    const int program = grant.program_fd();
    EXPECT_EQ(setsockopt(other.get(), SOL_SOCKET, SO_ATTACH_BPF, &program,
                         sizeof(program)),
              0);
    EXPECT_EQ(write(one.get(), "x", 1), 1);
    const uint32_t zero = 0;
    const auto handle = grant.Find("seen");
    EXPECT_TRUE(handle.ok() &&
                bpf_map_lookup_elem((*handle)->fd.get(), &zero, &seen) == 0);
    EXPECT_EQ(seen.packets, 1u);
    return seen;
  }
  chosen_seen SeeWith(const Values& values) {
    const auto grant = Acquire(values);
    EXPECT_TRUE(grant.ok()) << grant.status();
    return grant.ok() ? See(*grant) : chosen_seen{};
  }
  void ExpectRefused(const Values& values, v1::Reason reason,
                     const std::string& what) {
    const auto grant = Acquire(values);
    EXPECT_EQ(ReasonOf(grant.status()), reason) << grant.status();
    EXPECT_THAT(std::string(grant.status().message()), HasSubstr(what));
  }
};

TEST_F(ParametersTest, WhatIsNotChosenIsTheDefault) {
  BPFGRANT_AS_NOBODY();
  const chosen_seen seen = SeeWith({kNumber});
  EXPECT_EQ(seen.level, 5);
  EXPECT_EQ(seen.color, 1u);
  EXPECT_EQ(seen.name.head.length, 0u);
  EXPECT_EQ(seen.source.family, 4u);
  EXPECT_EQ(seen.source.length, 8u);
  EXPECT_EQ(seen.source.address[0], 127);
  EXPECT_EQ(seen.settings.number, 77u);
  EXPECT_EQ(seen.settings.tag.head.length, 0u);
  EXPECT_EQ(seen.settings.network.family, 0u);
  EXPECT_EQ(seen.settings.mode, 7u);
}

TEST_F(ParametersTest, ConstantsOfEveryType) {
  BPFGRANT_AS_NOBODY();
  const chosen_seen seen = SeeWith(
      {kNumber, IntegerParameter("level", -10),
       ChoiceParameter("color", "blue"),
       BytesParameter("name", std::string("a\0b", 3)),
       PrefixParameter("source",
                       std::string("\x20\x01", 2) + std::string(14, 0), 16)});
  EXPECT_EQ(seen.level, -10);
  EXPECT_EQ(seen.color, 200u);
  EXPECT_EQ(seen.name.head.length, 3u);
  EXPECT_EQ(std::memcmp(seen.name.bytes, "a\0b\0\0\0\0\0", 8), 0);
  EXPECT_EQ(seen.source.family, 6u);
  EXPECT_EQ(seen.source.length, 16u);
  EXPECT_EQ(seen.source.address[0], 0x20);
}

TEST_F(ParametersTest, EntriesOfEveryType) {
  BPFGRANT_AS_NOBODY();
  const chosen_seen seen =
      SeeWith({IntegerParameter("number", 281474976710656),
               BytesParameter("tag", "12345678"),
               PrefixParameter("network", std::string("\x0a\x80\0\0", 4), 9),
               ChoiceParameter("mode", "fast")});
  EXPECT_EQ(seen.settings.number, 281474976710656u);
  EXPECT_EQ(seen.settings.tag.head.length, 8u);
  EXPECT_EQ(std::memcmp(seen.settings.tag.bytes, "12345678", 8), 0);
  EXPECT_EQ(seen.settings.network.family, 4u);
  EXPECT_EQ(seen.settings.network.length, 9u);
  EXPECT_EQ(seen.settings.network.address[1], 0x80);
  EXPECT_EQ(seen.settings.mode, 9u);
  // The next has nothing of it.
  EXPECT_EQ(SeeWith({kNumber}).settings.tag.head.length, 0u);
}

TEST_F(ParametersTest, Mistakes) {
  BPFGRANT_AS_NOBODY();
  ExpectRefused({}, v1::REASON_PARAMETER_MISSING,
                "'number' must be given: 0 to 281474976710656");
  ExpectRefused({kNumber, IntegerParameter("path", 1)},
                v1::REASON_PARAMETER_UNKNOWN, "no parameter 'path'");
  ExpectRefused({kNumber, kNumber}, v1::REASON_INVALID_ARGUMENT, "twice");
  const auto out_of_range = [this](v1::ParameterValue value,
                                   const std::string& range) {
    ExpectRefused({kNumber, std::move(value)}, v1::REASON_PARAMETER_RANGE,
                  range);
  };
  out_of_range(IntegerParameter("level", 1001), "'level' is -10 to 1000 steps");
  out_of_range(IntegerParameter("level", INT64_MIN), "steps");
  out_of_range(ChoiceParameter("level", "1"), "steps");
  out_of_range(ChoiceParameter("color", "green"), "one of red, blue");
  out_of_range(IntegerParameter("color", 200), "one of red, blue");
  out_of_range(BytesParameter("name", "123456789"), "0 to 8 bytes");
  out_of_range(BytesParameter("tag", "1"), "2 to 8 bytes");
  out_of_range(PrefixParameter("source", "abc", 8), "at least 8 bits");
  out_of_range(PrefixParameter("source", std::string("\x7f\0\0\0", 4), 7),
               "at least 8 bits");
  out_of_range(PrefixParameter("source", std::string("\x7f\0\0\0", 4), 33), "");
  // A bit that does not count.
  out_of_range(PrefixParameter("source", std::string("\x7f\0\0\1", 4), 8), "");
  out_of_range(PrefixParameter("network", std::string(16, 0), 0), "IPv4");
  v1::ParameterValue fd = IntegerParameter("level", 0);
  fd.set_fd(0);
  out_of_range(fd, "steps");
  ExpectRefused(Values(kMaxParameters + 1, kNumber),
                v1::REASON_INVALID_ARGUMENT, "");
  // None of it left anything.
  EXPECT_EQ(connection().Grants()->grant_size(), 0);
}

class UncheckedParametersTest : public ParametersTest {
 protected:
  std::vector<std::string> Without() override { return {"parameter_ranges"}; }
};

TEST_F(UncheckedParametersTest, AreWhateverTheClientLikes) {
  BPFGRANT_AS_NOBODY();
  EXPECT_EQ(SeeWith({kNumber, IntegerParameter("level", 5000)}).level, 5000);
}

TEST_F(ParametersTest, AtOnceEachGetsItsOwn) {
  BPFGRANT_AS_NOBODY();
  std::vector<std::thread> clients;
  for (int64_t level = 1; level <= 4; ++level) {
    clients.emplace_back([this, level] {
      auto own = Connection::Connect({.path = SocketForNobody()});
      ASSERT_TRUE(own.ok()) << own.status();
      for (int i = 0; i < 3; ++i) {
        const auto grant =
            own->Acquire({.program = "chosen",
                          .interface = "chosen/1",
                          .parameters = {IntegerParameter("number", level),
                                         IntegerParameter("level", level)}});
        ASSERT_TRUE(grant.ok()) << grant.status();
        const chosen_seen seen = See(*grant);
        EXPECT_EQ(seen.level, level);
        EXPECT_EQ(seen.settings.number, static_cast<uint64_t>(level));
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

TEST_F(ParametersTest, LoadsForOtherValuesAreLimited) {
  BPFGRANT_AS_NOBODY();
  absl::Status refused;
  // Some come back meanwhile, one a second.
  uint32_t loaded = 0;
  while (refused.ok() && loaded < 8 * kValueLoadsAtOnce) {
    refused =
        Acquire({kNumber, IntegerParameter("level", 100 + loaded)}).status();
    loaded += refused.ok() ? 1 : 0;
  }
  EXPECT_GE(loaded, kValueLoadsAtOnce);
  EXPECT_EQ(ReasonOf(refused), v1::REASON_RATE) << refused;
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("16 loads for other values"));
  // The defaults cost no such load.
  EXPECT_TRUE(Acquire({kNumber, IntegerParameter("level", 5)}).ok());
}

class UnlimitedParametersTest : public ParametersTest {
 protected:
  std::vector<std::string> Without() override { return {"value_load_rate"}; }
};

TEST_F(UnlimitedParametersTest, AreLoadedWithoutEnd) {
  BPFGRANT_AS_NOBODY();
  for (uint32_t i = 0; i < 8 * kValueLoadsAtOnce; ++i) {
    EXPECT_TRUE(Acquire({kNumber, IntegerParameter("level", 100 + i)}).ok());
  }
}

constexpr char kNarrow[] = R"(
rule {
  name: "narrow"
  effect: ALLOW
  everyone: true
  program: "*"
  quota { grants: 64 }
  trusted: true
  parameter { name: "level" min: 3 max: 6 }
  parameter { name: "color" choice: "red" }
  parameter { name: "name" max_length: 2 }
  parameter { name: "source" prefix: ["127.0.0.0/8", "fd00::/8"] }
}
)";

class NarrowedParametersTest : public ParametersTest {
 protected:
  std::string Policy() override { return kNarrow; }
};

TEST_F(NarrowedParametersTest, ARuleLeavesLess) {
  BPFGRANT_AS_NOBODY();
  const auto narrowed = [this](v1::ParameterValue value,
                               const std::string& what) {
    ExpectRefused({kNumber, std::move(value)}, v1::REASON_PARAMETER_NARROWED,
                  what);
  };
  EXPECT_EQ(SeeWith({kNumber, IntegerParameter("level", 6)}).level, 6);
  narrowed(IntegerParameter("level", 7),
           "lets parameter 'level' be at least 3, at most 6");
  narrowed(IntegerParameter("level", 2), "rule 'narrow'");
  narrowed(ChoiceParameter("color", "blue"), "one of red");
  narrowed(BytesParameter("name", "123"), "at most 2 bytes long");
  narrowed(PrefixParameter("source", std::string("\x0a\0\0\0", 4), 8),
           "within 127.0.0.0/8, fd00::/8");
  EXPECT_EQ(SeeWith({kNumber, PrefixParameter(
                                  "source", std::string("\x7f\1\0\0", 4), 16)})
                .source.address[1],
            1);
  ExpectRefused({kNumber, IntegerParameter("level", 1001)},
                v1::REASON_PARAMETER_RANGE, "");
}

class NarrowedDefaultTest : public ParametersTest {
 protected:
  std::string Policy() override {
    std::string policy = kNarrow;
    return policy.replace(policy.find("min: 3"), 6, "min: 6");
  }
};

TEST_F(NarrowedDefaultTest, ADefaultIsNoWayAround) {
  BPFGRANT_AS_NOBODY();
  ExpectRefused({kNumber}, v1::REASON_PARAMETER_NARROWED, "at least 6");
  EXPECT_EQ(SeeWith({kNumber, IntegerParameter("level", 6)}).level, 6);
}

class UnnarrowedParametersTest : public NarrowedParametersTest {
 protected:
  std::vector<std::string> Without() override {
    return {"parameter_narrowing"};
  }
};

TEST_F(UnnarrowedParametersTest, ARuleLeavesAll) {
  BPFGRANT_AS_NOBODY();
  EXPECT_EQ(SeeWith({kNumber, IntegerParameter("level", 7)}).level, 7);
}

}  // namespace
}  // namespace bpfgrant::test

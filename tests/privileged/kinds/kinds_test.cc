// A handle of each kind in the hands of a client without privilege: used as it
// should be, wrongly, twice, by two processes, after its grant has ended, and
// by a client that is killed meanwhile. reuseport_steer's own tests have the
// socket array.

#include "tests/privileged/kinds/kinds.h"

#include <linux/bpf.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "client/bpfgrant/grant.h"
#include "client/bpfgrant/mapped_array.h"
#include "client/bpfgrant/ring_buffer.h"
#include "client/bpfgrant/user_ring_buffer.h"
#include "gtest/gtest.h"
#include "proto/wire/unique_fd.h"
#include "tests/harness/as_nobody.h"

namespace bpfgrant::test {
namespace {

// The catalog of a daemon that NobodyTest starts itself.
[[maybe_unused]] const int catalog =
    setenv("BPFGRANT_TEST_CATALOG", KINDS_CATALOG, /*replace=*/1);

using Bytes = std::vector<char>;

template <typename Value>
Bytes BytesOf(const Value& value) {
  Bytes bytes(sizeof(value));
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

int Bpf(int command, bpf_attr& attributes) {
  return static_cast<int>(
      syscall(SYS_bpf, command, &attributes, sizeof(attributes)));
}

// The calls of bpf(2) that a map's handle is for. 0 or -errno.
int Call(int command, int map, Bytes key, uint64_t* value,
         uint64_t flags = BPF_ANY) {
  // A value for each processor there can be, of the kind that has that.
  std::vector<uint64_t> values(4096, value == nullptr ? 0 : *value);
  bpf_attr attributes{};
  attributes.map_fd = static_cast<uint32_t>(map);
  attributes.key = reinterpret_cast<uintptr_t>(key.data());
  if (command != BPF_MAP_DELETE_ELEM) {
    attributes.value = reinterpret_cast<uintptr_t>(values.data());
  }
  attributes.flags = command == BPF_MAP_UPDATE_ELEM ? flags : 0;
  const int result = Bpf(command, attributes);
  if (result == 0 && value != nullptr) *value = values[0];
  return result == 0 ? 0 : -errno;
}
int Update(int map, const Bytes& key, uint64_t value,
           uint64_t flags = BPF_ANY) {
  return Call(BPF_MAP_UPDATE_ELEM, map, key, &value, flags);
}

class KindsTest : public NobodyTest {
 protected:
  KindsTest() : NobodyTest("kinds") {}

  void SetUp() override {
    NobodyTest::SetUp();
    if (!IsNobody() || HasFatalFailure()) return;
    ASSERT_NO_FATAL_FAILURE(Take());
  }

  void Take() {
    found_.reset();
    auto grant =
        connection().Acquire({.program = "kinds", .interface = "kinds/1"});
    ASSERT_TRUE(grant.ok()) << grant.status();
    grant_.emplace(*std::move(grant));
    auto mapped = MappedArray::Map(**grant_->Find("found"));
    ASSERT_TRUE(mapped.ok()) << mapped.status();
    found_.emplace(*std::move(mapped));
  }

  int Fd(const std::string& handle) const {
    return (*grant_->Find(handle))->fd.get();
  }
  // What a run of the program finds.
  const kinds_found& Run() { return RunBy(grant_->program_fd()); }
  const kinds_found& RunBy(int program) {
    const char data[64] = {};
    bpf_attr attributes{};
    attributes.test.prog_fd = static_cast<uint32_t>(program);
    attributes.test.data_in = reinterpret_cast<uintptr_t>(data);
    attributes.test.data_size_in = sizeof(data);
    EXPECT_EQ(Bpf(BPF_PROG_TEST_RUN, attributes), 0) << strerror(errno);
    return found();
  }
  const kinds_found& found() { return *found_->At<kinds_found>(0); }

  // `work`, again and again, in a child that is killed in the middle of it.
  static void InAChildThatIsKilled(const std::function<void()>& work) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      work();
      if (write(ends[1], "", 1) != 1) _exit(1);
      for (;;) work();
    }
    char byte;
    EXPECT_EQ(read(ends[0], &byte, 1), 1);
    usleep(20'000);
    EXPECT_EQ(kill(child, SIGKILL), 0);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
    close(ends[0]);
    close(ends[1]);
  }

  std::optional<Grant> grant_;
  std::optional<MappedArray> found_;
};

// Kinds that are used with bpf(2).
struct Kind {
  std::string handle;
  Bytes key;     // which the program looks at
  Bytes wrong;   // which there cannot be
  int refused;   // what an update of that is answered
  bool deletes;  // an entry can be taken out
  __u64 kinds_found::*seen;
};

const Kind& KindOf(const std::string& handle) {
  static const std::array<Kind, 4> kinds = {{
      {"array", BytesOf(1U), BytesOf(~0U), -E2BIG, false, &kinds_found::array},
      {"hash", BytesOf(1U), {}, 0, true, &kinds_found::hash},
      {"percpu", BytesOf(1U), BytesOf(unsigned{KINDS_ENTRIES}), -E2BIG, false,
       &kinds_found::percpu},
      {"trie", BytesOf(kinds_prefix{16, {10, 1}}),
       BytesOf(kinds_prefix{33, {}}), -EINVAL, true, &kinds_found::trie},
  }};
  for (const Kind& kind : kinds) {
    if (kind.handle == handle) return kind;
  }
  std::abort();
}

class MapTest : public KindsTest,
                public ::testing::WithParamInterface<const char*> {
 protected:
  const Kind& kind() const { return KindOf(GetParam()); }
  int map() const { return Fd(kind().handle); }
};

TEST_P(MapTest, TheProgramSeesWhatIsWritten) {
  BPFGRANT_AS_NOBODY();
  for (const uint64_t value : {7, 8}) {
    EXPECT_EQ(Update(map(), kind().key, value), 0);
    uint64_t read = 0;
    EXPECT_EQ(Call(BPF_MAP_LOOKUP_ELEM, map(), kind().key, &read), 0);
    EXPECT_EQ(read, value);
    EXPECT_EQ(Run().*kind().seen, value);
  }
}

TEST_P(MapTest, Mistakes) {
  BPFGRANT_AS_NOBODY();
  EXPECT_EQ(Update(map(), kind().key, 7), 0);
  if (!kind().wrong.empty()) {
    EXPECT_EQ(Update(map(), kind().wrong, 9), kind().refused);
  }
  EXPECT_EQ(Update(map(), kind().key, 9, 99), -EINVAL);
  EXPECT_EQ(Update(map(), kind().key, 9, BPF_NOEXIST), -EEXIST);
  // Entries that are taken out once are not there to be taken out twice.
  uint64_t value = 0;
  const int taken = Call(BPF_MAP_DELETE_ELEM, map(), kind().key, nullptr);
  EXPECT_EQ(taken, kind().deletes ? 0 : -EINVAL);
  EXPECT_EQ(Call(BPF_MAP_DELETE_ELEM, map(), kind().key, nullptr),
            kind().deletes ? -ENOENT : -EINVAL);
  EXPECT_EQ(Call(BPF_MAP_LOOKUP_ELEM, map(), kind().key, &value),
            kind().deletes ? -ENOENT : 0);
  EXPECT_EQ(Run().*kind().seen, kind().deletes ? 0u : 7u);
  // Neither is it a map of another kind.
  EXPECT_FALSE(RingBuffer::Map(**grant_->Find(kind().handle)).ok());
  EXPECT_FALSE(UserRingBuffer::Map(**grant_->Find(kind().handle)).ok());
  EXPECT_FALSE(MappedArray::Map(**grant_->Find(kind().handle)).ok());
}

// As many as it has entries, and one more.
TEST_P(MapTest, Full) {
  BPFGRANT_AS_NOBODY();
  if (!kind().deletes) return;  // all entries are always there
  for (unsigned i = 0; i < KINDS_ENTRIES; ++i) {
    const Bytes key = kind().handle == "hash"
                          ? BytesOf(i)
                          : BytesOf(kinds_prefix{32, {9, 9, 9, __u8(i)}});
    EXPECT_EQ(Update(map(), key, i), 0) << i;
  }
  const Bytes more = kind().handle == "hash"
                         ? BytesOf(unsigned{KINDS_ENTRIES})
                         : BytesOf(kinds_prefix{32, {8, 8, 8, 8}});
  const int result = Update(map(), more, 1);
  EXPECT_TRUE(result == -E2BIG || result == -ENOSPC) << result;
}

TEST_P(MapTest, ByTwoProcesses) {
  BPFGRANT_AS_NOBODY();
  const pid_t child = fork();
  for (int i = 0; i < 2000; ++i) {
    if (Update(map(), kind().key, child == 0 ? 1 : 2) != 0) {
      if (child == 0) _exit(1);
      ADD_FAILURE();
    }
  }
  if (child == 0) _exit(0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const uint64_t seen = Run().*kind().seen;
  EXPECT_TRUE(seen == 1 || seen == 2) << seen;
}

// A fork(2)ed child has the fds, and goes on when the grant has ended: nobody
// looks at what it writes.
TEST_P(MapTest, AfterTheGrantEnded) {
  BPFGRANT_AS_NOBODY();
  const UniqueFd kept(dup(map()));
  const UniqueFd program(dup(grant_->program_fd()));
  EXPECT_EQ(Update(kept.get(), kind().key, 7), 0);
  EXPECT_EQ(Run().runs, 1u);
  ASSERT_TRUE(grant_->Release().ok());
  EXPECT_EQ(Update(kept.get(), kind().key, 8), 0);
  EXPECT_EQ(RunBy(program.get()).runs, 1u);
  EXPECT_EQ(found().*kind().seen, 7u);
  // The next grant has maps of its own.
  ASSERT_NO_FATAL_FAILURE(Take());
  EXPECT_EQ(Run().*kind().seen, 0u);
}

TEST_P(MapTest, AClientThatIsKilled) {
  BPFGRANT_AS_NOBODY();
  InAChildThatIsKilled([this] { Update(map(), kind().key, 5); });
  EXPECT_EQ(Run().*kind().seen, 5u);
  EXPECT_EQ(Update(map(), kind().key, 6), 0);
  EXPECT_EQ(Run().*kind().seen, 6u);
}

INSTANTIATE_TEST_SUITE_P(Kinds, MapTest,
                         ::testing::Values("array", "hash", "percpu", "trie"),
                         [](const auto& info) {
                           return std::string(info.param);
                         });

class BufferTest : public KindsTest {
 protected:
  static size_t Take(RingBuffer& buffer, uint64_t& last_runs) {
    const auto taken = buffer.Consume([&](absl::Span<const std::byte> record) {
      ASSERT_EQ(record.size(), sizeof(kinds_found));
      kinds_found event;
      std::memcpy(&event, record.data(), sizeof(event));
      EXPECT_GT(event.runs, last_runs);
      last_runs = event.runs;
    });
    EXPECT_TRUE(taken.ok()) << taken.status();
    return taken.ok() ? *taken : 0;
  }
};

// Whoever maps it has one and the same position.
TEST_F(BufferTest, ARingBufferMappedTwice) {
  BPFGRANT_AS_NOBODY();
  auto one = RingBuffer::Map(**grant_->Find("events"));
  auto other = RingBuffer::Map(**grant_->Find("events"));
  ASSERT_TRUE(one.ok() && other.ok());
  uint64_t last = 0;
  Run();
  EXPECT_EQ(Take(*one, last), 1u);
  EXPECT_EQ(Take(*other, last), 0u);
  Run();
  EXPECT_EQ(Take(*other, last), 1u);
  EXPECT_EQ(Take(*one, last), 0u);
}

TEST_F(BufferTest, ARingBufferWhoseReaderIsKilled) {
  BPFGRANT_AS_NOBODY();
  InAChildThatIsKilled([this] {
    auto buffer = RingBuffer::Map(**grant_->Find("events"));
    uint64_t last = 0;
    Run();
    Take(*buffer, last);
  });
  auto buffer = RingBuffer::Map(**grant_->Find("events"));
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  uint64_t last = 0;
  Take(*buffer, last);
  const uint64_t runs = Run().runs;
  EXPECT_EQ(Take(*buffer, last), 1u);
  EXPECT_EQ(last, runs);
}

TEST_F(BufferTest, ARingBufferAfterTheGrantEnded) {
  BPFGRANT_AS_NOBODY();
  auto buffer = RingBuffer::Map(**grant_->Find("events"));
  ASSERT_TRUE(buffer.ok()) << buffer.status();
  const UniqueFd program(dup(grant_->program_fd()));
  Run();
  ASSERT_TRUE(grant_->Release().ok());
  RunBy(program.get());
  uint64_t last = 0;
  EXPECT_EQ(Take(*buffer, last), 1u);
  EXPECT_EQ(last, 1u);
}

// Two producers that agree about nothing; the kernel sees to itself.
TEST_F(BufferTest, AUserRingBufferWrittenByTwoProcesses) {
  BPFGRANT_AS_NOBODY();
  const pid_t child = fork();
  auto input = UserRingBuffer::Map(**grant_->Find("input"));
  if (!input.ok()) {
    if (child == 0) _exit(1);
    FAIL() << input.status();
  }
  for (int i = 0; i < 2000; ++i) {
    const uint64_t one = 1;
    auto sample = input->Reserve(sizeof(one));
    if (sample.ok()) {
      std::memcpy(sample->data(), &one, sizeof(one));
      input->Submit(*sample);
    }
    Run();
  }
  if (child == 0) _exit(0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  // What they made of each other's samples is theirs; the program lives on.
  const uint64_t runs = found().runs;
  EXPECT_EQ(Run().runs, runs + 1);
}

// A program's fd: on a socket, twice, by two processes, once it is revoked.
TEST_F(KindsTest, AProgramOnSockets) {
  BPFGRANT_AS_NOBODY();
  const UniqueFd program(dup(grant_->program_fd()));
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
  const UniqueFd in(ends[0]), out(ends[1]);
  const int fd = program.get();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(setsockopt(out.get(), SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof(fd)),
              0);
  }
  EXPECT_EQ(setsockopt(out.get(), SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &fd,
                       sizeof(fd)),
            -1);
  const pid_t child = fork();
  if (child == 0) _exit(write(in.get(), "x", 1) == 1 ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(write(in.get(), "y", 1), 1);
  EXPECT_EQ(found().runs, 2u);
  ASSERT_TRUE(grant_->Release().ok());
  EXPECT_EQ(write(in.get(), "z", 1), 1);
  EXPECT_EQ(found().runs, 2u);
}

}  // namespace
}  // namespace bpfgrant::test

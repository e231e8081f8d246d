// A process that rewrites the memory and the ring while the loop runs. What it
// reads then is its own problem; the loop has to end, and to work afterwards.

#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "tests/loop/frame_reader/frame_fixture.h"

namespace bpfgrant::test {
namespace {

using Random = std::mt19937_64;
using Clock = std::chrono::steady_clock;

// Does `harm` again and again in another thread.
class Meanwhile {
 public:
  explicit Meanwhile(std::function<void(Random&)> harm)
      : thread_([this, harm = std::move(harm)] {
          Random random(99);
          while (!stop_) harm(random);
        }) {}
  ~Meanwhile() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

class HostileTest : public FrameReaderTest {
 protected:
  static constexpr auto kHarmFor = std::chrono::seconds(2);
  static constexpr uint32_t kConnections = 8;

  // Streams come, while something does harm; each run ends in time.
  void RunFor(std::chrono::milliseconds time) {
    const auto end = Clock::now() + time;
    std::mt19937 random(5);
    std::string stream;
    for (uint32_t i = 0; i < 200; ++i)
      stream += Encode(i % 4, Body(random() % (i % 9 == 0 ? 9000 : 300), i));
    for (uint32_t number = 0; Clock::now() < end && !HasFailure(); ++number) {
      Reopen(number % kConnections, stream);
      const auto before = Clock::now();
      auto stop =
          loop().Run({.deadline = before + std::chrono::milliseconds(50)});
      ASSERT_TRUE(stop.ok()) << stop.status();
      ASSERT_LT(Clock::now() - before, std::chrono::seconds(20));
      Drain();
    }
  }

  // All that is wrong with the events is that they are wrong.
  void Drain() {
    ASSERT_TRUE(events().Consume([](absl::Span<const std::byte>) {}).ok());
    for (uint32_t place = 0; place < 700; ++place)
      frame_reader_tell(&memory(), FRAME_READER_GIVE, 1, place);
    for (uint32_t chunk = 0; chunk < 16; ++chunk)
      frame_reader_tell(&memory(), FRAME_READER_GIVE, 0xffffff, chunk << 18);
  }

  void Reopen(uint32_t number, const std::string& stream) {
    Close(number);
    Forget(number);
    Connect(number);
    Send(number, stream);
  }

  // On a number that nobody has touched, and after all others have ended.
  void ExpectWorks() {
    for (uint32_t i = 0; i < kConnections; ++i) Close(i);
    for (int i = 0; i < 5; ++i) {
      loop()
          .Run({.deadline = Clock::now() + std::chrono::milliseconds(50)})
          .IgnoreError();
      Drain();
    }
    std::string stream;
    for (uint32_t i = 0; i < 20; ++i) stream += Encode(i % 4, Body(i * 10, i));
    Connect(200);
    SendAll(200, stream);
    Close(200);
    Pump();
    ExpectParsed(200, stream);
  }
};
BPFGRANT_PLACES(HostileTest);

TEST_P(HostileTest, MemoryThatChanges) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    Connect(0);
    Pump();  // it reads its config, where requests point to
    {
      frame_reader_memory& shared = memory();
      Meanwhile meanwhile([&shared](Random& random) {
        frame_reader_desk& desk = shared.desks[random() % kConnections];
        const uint64_t value = random();
        switch (random() % 7) {
          case 0:
            bpfgrant_write_once(shared.totals.frames, value);
            break;
          case 1:
            bpfgrant_write_once(
                shared.commands[value % FRAME_READER_COMMANDS].value,
                static_cast<uint32_t>(random()));
            break;
          case 2:
            bpfgrant_write_once(desk.header.length,
                                static_cast<uint32_t>(value % 70'000));
            break;
          case 3:
            bpfgrant_write_once(desk.vectors[value % 128].base, random());
            break;
          case 4:
            bpfgrant_write_once(desk.lot[value % 128].place,
                                static_cast<uint32_t>(random()));
            break;
          case 5:
            bpfgrant_write_once(desk.peeked[value % FRAME_READER_PEEK],
                                static_cast<uint8_t>(random()));
            break;
          default:
            bpfgrant_write_once(shared.staging[value % FRAME_READER_STAGING],
                                static_cast<uint8_t>(random()));
        }
      });
      RunFor(kHarmFor);
    }
    ExpectWorks();
  }
}

// The process's own end of the commands, backwards and forwards.
TEST_P(HostileTest, CommandsThatAreNone) {
  BPFGRANT_IN_PLACE();
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    Random random(1);
    for (int i = 0; i < 300; ++i) {
      for (frame_reader_command& command : memory().commands) {
        command.what = static_cast<uint32_t>(random());
        command.value = static_cast<uint32_t>(random()) | 1u << 31;
      }
      memory().command_tail = static_cast<uint32_t>(random());
      auto stop = loop().Run({.wait = false});
      ASSERT_TRUE(stop.ok()) << stop.status();
      ASSERT_TRUE(events().Consume([](absl::Span<const std::byte>) {}).ok());
    }
  }
}

// Completions that no request of the loop's has.
TEST_P(HostileTest, CompletionsThatAreNone) {
  BPFGRANT_IN_PLACE();
  if (!InKernel()) return;  // in the process the ring is the process's own
  constexpr size_t kBytes = 64 + 512 * sizeof(io_uring_cqe);
  for (const auto mode : Modes()) {
    SCOPED_TRACE(mode);
    ASSERT_NO_FATAL_FAILURE(Open(Config(mode)));
    void* const map = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                           loop().ring_fd(), IORING_OFF_CQ_RING);
    ASSERT_NE(map, MAP_FAILED);
    auto* const cqes =
        reinterpret_cast<io_uring_cqe*>(static_cast<char*>(map) + 64);
    {
      Meanwhile meanwhile([cqes](Random& random) {
        io_uring_cqe& cqe = cqes[random() % 512];
        bpfgrant_write_once(cqe.user_data, random() % 16);
        bpfgrant_write_once(cqe.res, static_cast<int>(random() % 9000) - 100);
      });
      RunFor(kHarmFor);
    }
    munmap(map, kBytes);
  }
}

}  // namespace
}  // namespace bpfgrant::test

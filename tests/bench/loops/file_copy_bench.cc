#include "tests/bench/loops/file_copy_bench.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpf-programs/file_copy/file_copy.h"
#include "client/bpfgrant/loop.h"
#include "proto/wire/unique_fd.h"
#include "tests/bench/loops/file_copy_by_hand.h"
#include "tests/bench/loops/measure.h"

BPFGRANT_NATIVE_LOOP(file_copy);

namespace bpfgrant::bench {
namespace {

constexpr int kRounds = 5;

void Abort(const std::string& why) {
  std::fprintf(stderr, "file_copy: %s\n", why.c_str());
  std::abort();
}

// The loop, in the kernel if there is a connection; files and buffers
// registered as by hand.
class LoopCopy {
 public:
  LoopCopy(Connection* connection, int from, int to, uint32_t block,
           unsigned depth)
      : buffers_(static_cast<size_t>(block) * depth) {
    auto loop = Loop::Create(
        connection, {.program = "file_copy",
                     .interface = "file_copy/1",
                     .where = connection != nullptr ? Loop::Where::kKernelOnly
                                                    : Loop::Where::kProcessOnly,
                     .native = &bpfgrant_native_file_copy,
                     .memory_bytes = sizeof(file_copy_memory),
                     .buffers = {{buffers_.data(), buffers_.size()}},
                     .files = {from, to}});
    if (!loop.ok()) Abort(loop.status().ToString());
    loop_.emplace(*std::move(loop));
    memory_ = loop_->memory_as<file_copy_memory>();
    memory_->job = {
        .from_fd = 0,
        .to_fd = 1,
        .flags = FILE_COPY_FROM_SLOT | FILE_COPY_TO_SLOT | FILE_COPY_BUFFER,
        .block = block,
        .lanes = depth,
        .buffers = reinterpret_cast<uintptr_t>(buffers_.data()),
        .extents = 1};
  }
  uint64_t Run(uint64_t size) {
    memory_->extents[0] = {0, 0, size};
    const auto stop = loop_->Run({});
    if (!stop.ok()) Abort(stop.status().ToString());
    if (stop->why != BPFGRANT_STOP_DONE) Abort(Loop::Describe(*stop));
    return memory_->outcome.bytes;
  }
  uint64_t enters() const { return loop_->enters(); }

 private:
  std::vector<char> buffers_;
  std::optional<Loop> loop_;
  file_copy_memory* memory_ = nullptr;
};

// What one would do without io_uring.
class PlainCopy {
 public:
  PlainCopy(int from, int to, uint32_t block)
      : from_(from), to_(to), buffer_(block) {}
  uint64_t Run(uint64_t size) {
    uint64_t at = 0;
    while (at < size) {
      const ssize_t got =
          pread(from_, buffer_.data(), buffer_.size(), static_cast<off_t>(at));
      if (got <= 0 ||
          pwrite(to_, buffer_.data(), got, static_cast<off_t>(at)) != got) {
        Abort("pread and pwrite");
      }
      at += got;
    }
    return at;
  }
  uint64_t enters() const { return 0; }

 private:
  const int from_, to_;
  std::vector<char> buffer_;
};

void BenchOne(Connection* connection, const std::string& folder, uint32_t block,
              unsigned depth) {
  const uint64_t blocks = block < 16384 ? 2000 : 200;
  const uint64_t size = block * blocks;
  const std::string source = absl::StrCat(folder, "/source");
  const std::string destination = absl::StrCat(folder, "/destination");
  std::ofstream(source) << std::string(size, 'x');
  std::ofstream(destination) << std::string(size, 'y');
  const UniqueFd from(open(source.c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd to(open(destination.c_str(), O_WRONLY | O_CLOEXEC));
  Contest contest(
      absl::StrCat("copy, a block of ", block, " bytes; ", depth, " at once"),
      "by hand: in rounds");
  const auto add = [&](const char* name, auto way) {
    contest.Add(name, [way, size, blocks] {
      Spent spent{.jobs = blocks};
      const uint64_t enters = way->enters();
      const Stopwatch stopwatch;
      if (way->Run(size) != size) Abort("another size");
      spent.seconds = stopwatch.seconds();
      spent.switches = stopwatch.switches();
      spent.enters = way->enters() - enters;
      return spent;
    });
  };
  const int in = from.get(), out = to.get();
  using Way = HandCopy::Way;
  add("by hand: in rounds",
      std::make_shared<HandCopy>(Way::kRounds, in, out, block, depth));
  add("by hand: linked",
      std::make_shared<HandCopy>(Way::kLinked, in, out, block, depth));
  if (depth == 1) {
    add("by hand: pread, pwrite(2)",
        std::make_shared<PlainCopy>(in, out, block));
  }
  if (connection != nullptr) {
    add("loop, kernel",
        std::make_shared<LoopCopy>(connection, in, out, block, depth));
  }
  add("loop, process",
      std::make_shared<LoopCopy>(nullptr, in, out, block, depth));
  contest.Run(kRounds);
}

}  // namespace

void BenchFileCopy(Connection* connection) {
  namespace fs = std::filesystem;
  const fs::path parent =
      fs::is_directory("/scratch") ? "/scratch" : fs::temp_directory_path();
  const std::string folder = parent / "bpfgrant-file-copy-bench";
  fs::create_directory(folder);
  for (const uint32_t block : {64u, 512u, 4096u, 65536u}) {
    for (const unsigned depth : {1u, 8u, 32u}) {
      BenchOne(connection, folder, block, depth);
    }
  }
  fs::remove_all(folder);
}

}  // namespace bpfgrant::bench

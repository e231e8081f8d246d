#include "tests/bench/loops/chain_bench.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bpf-programs/chain/chain.h"
#include "client/bpfgrant/loop.h"
#include "proto/wire/unique_fd.h"
#include "tests/bench/loops/chain_by_hand.h"
#include "tests/bench/loops/measure.h"

BPFGRANT_NATIVE_LOOP(chain);

namespace bpfgrant::bench {
namespace {

constexpr int kRounds = 5;
constexpr size_t kFiles = 1000;
constexpr size_t kNumbers = 16'384;

void Abort(const std::string& why) {
  std::fprintf(stderr, "chain: %s\n", why.c_str());
  std::abort();
}

chain_operand Is(uint64_t value) { return {.value = value}; }
chain_operand From(chain_source source, uint8_t index, int32_t scale = 1,
                   const void* base = nullptr) {
  return {.value = reinterpret_cast<uintptr_t>(base),
          .scale = scale,
          .source = static_cast<__u8>(source),
          .index = index};
}

// The loop, in the kernel if there is a connection.
class Chain {
 public:
  Chain(Connection* connection, unsigned depth, std::vector<int> files) {
    auto loop = Loop::Create(
        connection, {.program = "chain",
                     .interface = "chain/1",
                     .where = connection != nullptr ? Loop::Where::kKernelOnly
                                                    : Loop::Where::kProcessOnly,
                     .native = &bpfgrant_native_chain,
                     .memory_bytes = sizeof(chain_memory),
                     .files = std::move(files)});
    if (!loop.ok()) Abort(loop.status().ToString());
    loop_.emplace(*std::move(loop));
    memory_ = loop_->memory_as<chain_memory>();
    memory_->program.lanes = depth;
  }

  chain_memory& memory() { return *memory_; }
  uint64_t enters() const { return loop_->enters(); }
  // One more template at the list's end.
  chain_template& Add(uint8_t opcode) {
    chain_template& added = memory_->templates[memory_->program.templates++];
    added.opcode = opcode;
    return added;
  }
  void Run(uint32_t items) {
    memory_->program.items = items;
    auto stop = loop_->Run({});
    if (!stop.ok()) Abort(stop.status().ToString());
    if (stop->why != BPFGRANT_STOP_DONE || memory_->outcome.failed != 0) {
      Abort(absl::StrCat(Loop::Describe(*stop), ", reason ",
                         memory_->outcome.reason, ", failed ",
                         memory_->outcome.failed));
    }
  }

 private:
  std::optional<Loop> loop_;
  chain_memory* memory_ = nullptr;
};

class ChainFiles {
 public:
  ChainFiles(Connection* connection, bool direct, unsigned depth,
             uint32_t length)
      : chain_(connection, depth, std::vector<int>(direct ? depth : 0, -1)),
        buffers_(static_cast<size_t>(depth) * length) {
    const chain_operand slot = {.value = 1, .scale = 1, .source = CHAIN_LANE};
    chain_template& open = chain_.Add(IORING_OP_OPENAT);
    open.parts[CHAIN_FD] = Is(AT_FDCWD);
    open.parts[CHAIN_ADDRESS] = From(CHAIN_FIELD, 0);
    chain_template& read = chain_.Add(IORING_OP_READ);
    read.parts[CHAIN_FD] = direct ? From(CHAIN_LANE, 0) : From(CHAIN_RESULT, 0);
    read.parts[CHAIN_ADDRESS] =
        From(CHAIN_LANE, 0, static_cast<int32_t>(length), buffers_.data());
    read.parts[CHAIN_LENGTH] = Is(length);
    read.parts[CHAIN_OFFSET] = From(CHAIN_SUM, 1);
    read.rules[0] = {1, INT_MAX, CHAIN_GO_TO, 1, CHAIN_FULL, 0};
    chain_template& close = chain_.Add(IORING_OP_CLOSE);
    if (direct) {
      open.parts[CHAIN_FILE] = close.parts[CHAIN_FILE] = slot;
      read.sqe_flags = IOSQE_FIXED_FILE;
    } else {
      close.parts[CHAIN_FD] = From(CHAIN_RESULT, 0);
    }
  }
  uint64_t Run(const std::vector<std::string>& paths) {
    for (size_t i = 0; i < paths.size(); ++i) {
      chain_.memory().items[i].fields[0] =
          reinterpret_cast<uintptr_t>(paths[i].c_str());
    }
    chain_.Run(paths.size());
    return chain_.memory().outcome.bytes;
  }
  uint64_t enters() const { return chain_.enters(); }

 private:
  Chain chain_;
  std::vector<char> buffers_;
};

class ChainLists {
 public:
  ChainLists(Connection* connection, int file, unsigned depth)
      : chain_(connection, depth, {file}) {
    chain_memory& memory = chain_.memory();
    // The first number's place is the item's, every other one's what was read.
    for (const bool first : {true, false}) {
      chain_template& read = chain_.Add(IORING_OP_READ);
      read.sqe_flags = IOSQE_FIXED_FILE;
      read.parts[CHAIN_ADDRESS] =
          From(CHAIN_LANE, 0, sizeof(memory.words[0]), memory.words);
      read.parts[CHAIN_LENGTH] = Is(sizeof(uint64_t));
      read.parts[CHAIN_OFFSET] =
          first ? From(CHAIN_FIELD, 0) : From(CHAIN_WORD, 0);
      if (!first) read.rules[0] = {1, INT_MAX, CHAIN_GO_TO, 1, CHAIN_FULL, 0};
    }
  }
  uint64_t Run(const std::vector<uint64_t>& starts) {
    for (size_t i = 0; i < starts.size(); ++i) {
      chain_.memory().items[i].fields[0] = starts[i];
    }
    chain_.Run(starts.size());
    return chain_.memory().outcome.bytes / sizeof(uint64_t);
  }
  uint64_t enters() const { return chain_.enters(); }

 private:
  Chain chain_;
};

// A turn of `way`: `job`, which must come to `expected`.
template <typename Way, typename Job>
Contest::Turn Turn(std::shared_ptr<Way> way, const Job& job, uint64_t jobs,
                   uint64_t expected) {
  return [way, &job, jobs, expected] {
    Spent spent{.jobs = jobs};
    const uint64_t enters = way->enters();
    const Stopwatch stopwatch;
    if (way->Run(job) != expected) Abort("another result");
    spent.seconds = stopwatch.seconds();
    spent.switches = stopwatch.switches();
    spent.enters = way->enters() - enters;
    return spent;
  };
}

// What one would do without io_uring.
class PlainFiles {
 public:
  explicit PlainFiles(uint32_t length) : buffer_(length) {}
  uint64_t Run(const std::vector<std::string>& paths) {
    uint64_t bytes = 0;
    for (const std::string& path : paths) {
      const int fd = open(path.c_str(), O_RDONLY);
      ssize_t got;
      do {
        got = read(fd, buffer_.data(), buffer_.size());
        if (got > 0) bytes += got;
      } while (got == static_cast<ssize_t>(buffer_.size()));
      close(fd);
    }
    return bytes;
  }
  uint64_t enters() const { return 0; }

 private:
  std::vector<char> buffer_;
};

void BenchFiles(Connection* connection, const std::string& folder,
                uint32_t size, unsigned depth) {
  const uint32_t length = size + 1;
  std::vector<std::string> paths;
  for (size_t i = 0; i < kFiles; ++i) {
    paths.push_back(absl::StrCat(folder, "/", i));
    std::ofstream(paths.back()) << std::string(size, 'x');
  }
  Contest contest(absl::StrCat("open, read ", size, " bytes, close; ", depth,
                               depth == 1 ? " file" : " files", " at once"),
                  "by hand: linked, direct");
  const auto add = [&](const char* name, auto way) {
    contest.Add(name, Turn(way, paths, kFiles, uint64_t{size} * kFiles));
  };
  using Way = HandFiles::Way;
  add("by hand: linked, direct",
      std::make_shared<HandFiles>(Way::kLinked, depth, length));
  add("by hand: in rounds",
      std::make_shared<HandFiles>(Way::kFd, depth, length));
  add("by hand: in rounds, direct",
      std::make_shared<HandFiles>(Way::kDirect, depth, length));
  if (depth == 1) {
    add("by hand: open, read, close(2)", std::make_shared<PlainFiles>(length));
  }
  for (const bool direct : {false, true}) {
    if (connection != nullptr) {
      add(direct ? "loop, kernel, direct" : "loop, kernel",
          std::make_shared<ChainFiles>(connection, direct, depth, length));
    }
    add(direct ? "loop, process, direct" : "loop, process",
        std::make_shared<ChainFiles>(nullptr, direct, depth, length));
  }
  contest.Run(kRounds);
}

// Lists that visit all of the file's numbers, at random.
std::vector<uint64_t> MakeLists(const std::string& path, size_t count) {
  std::vector<uint64_t> order(kNumbers);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  std::vector<uint64_t> numbers(kNumbers), starts;
  for (size_t i = 0; i < kNumbers; ++i) {
    // The last one of each list leads behind the file's end.
    const bool last = (i + 1) % (kNumbers / count) == 0;
    numbers[order[i]] = (last ? kNumbers : order[i + 1]) * sizeof(uint64_t);
    if (i % (kNumbers / count) == 0) starts.push_back(order[i] * 8);
  }
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(numbers.data()),
             static_cast<std::streamsize>(kNumbers * sizeof(uint64_t)));
  return starts;
}

void BenchLists(Connection* connection, const std::string& folder,
                unsigned depth) {
  const std::string path = absl::StrCat(folder, "/lists");
  const std::vector<uint64_t> starts = MakeLists(path, depth * 4);
  const UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  Contest contest(absl::StrCat("read where the last eight bytes said; ", depth,
                               depth == 1 ? " list" : " lists", " at once"),
                  "by hand");
  const auto add = [&](const char* name, auto way) {
    contest.Add(name, Turn(way, starts, kNumbers, kNumbers));
  };
  add("by hand", std::make_shared<HandLists>(file.get(), depth));
  if (connection != nullptr) {
    add("loop, kernel",
        std::make_shared<ChainLists>(connection, file.get(), depth));
  }
  add("loop, process",
      std::make_shared<ChainLists>(nullptr, file.get(), depth));
  contest.Run(kRounds);
}

}  // namespace

void BenchChain(Connection* connection) {
  namespace fs = std::filesystem;
  const fs::path parent =
      fs::is_directory("/scratch") ? "/scratch" : fs::temp_directory_path();
  const std::string folder = parent / "bpfgrant-chain-bench";
  fs::create_directory(folder);
  for (const unsigned depth : {1u, 4u, 16u, 64u}) {
    BenchLists(connection, folder, depth);
  }
  for (const uint32_t size : {100u, 4000u, 60'000u}) {
    for (const unsigned depth : {1u, 4u, 16u, 64u}) {
      BenchFiles(connection, folder, size, depth);
    }
  }
  fs::remove_all(folder);
}

}  // namespace bpfgrant::bench

// What one would write with liburing where the loop chain is used: the same
// jobs, done as well as it goes.

#ifndef TESTS_BENCH_LOOPS_CHAIN_BY_HAND_H_
#define TESTS_BENCH_LOOPS_CHAIN_BY_HAND_H_

#include <liburing.h>

#include <cstdint>
#include <string>
#include <vector>

namespace bpfgrant::bench {

// A ring for one thread, with its fd registered.
class HandRing {
 public:
  explicit HandRing(unsigned entries);
  HandRing(const HandRing&) = delete;
  HandRing& operator=(const HandRing&) = delete;
  ~HandRing();
  io_uring* get() { return &ring_; }
  // io_uring_submit_and_wait, counted.
  void SubmitAndWait(unsigned count);
  uint64_t enters() const { return enters_; }

 private:
  io_uring ring_;
  uint64_t enters_ = 0;
};

// Opens each file, reads it to its end and closes it; `depth` of them at once.
class HandFiles {
 public:
  enum class Way {
    kFd,      // a request at a time for each file, by fd
    kDirect,  // the same, by direct descriptors
    kLinked,  // the three of a file linked, by direct descriptors
  };
  HandFiles(Way way, unsigned depth, uint32_t length);

  // Bytes read.
  uint64_t Run(const std::vector<std::string>& paths);
  uint64_t enters() const { return ring_.enters(); }

 private:
  enum class Doing { kOpen, kRead, kClose };
  struct Lane {
    Doing doing;
    size_t path;
    int fd;
    uint64_t offset;
  };

  char* Buffer(unsigned lane) { return &buffers_[lane * length_]; }
  uint64_t RunRounds(const std::vector<std::string>& paths);
  uint64_t RunLinked(const std::vector<std::string>& paths);
  // The lane's next request.
  void Prepare(unsigned lane, const std::vector<std::string>& paths);
  // What follows from its result. False: the file is done with.
  bool Decide(unsigned lane, int result, uint64_t* bytes);
  void PrepareLinked(unsigned lane, const std::string& path);

  const Way way_;
  const unsigned depth_;
  const uint32_t length_;
  HandRing ring_;
  std::vector<char> buffers_;
  std::vector<Lane> lanes_;
};

// Follows lists in a file: what was read, eight bytes, says where to read next,
// until there is nothing; `depth` of them at once.
class HandLists {
 public:
  HandLists(int file, unsigned depth);
  // Numbers read.
  uint64_t Run(const std::vector<uint64_t>& starts);
  uint64_t enters() const { return ring_.enters(); }

 private:
  void Prepare(unsigned lane, uint64_t offset);

  const int file_;
  const unsigned depth_;
  HandRing ring_;
  std::vector<uint64_t> places_;
};

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_CHAIN_BY_HAND_H_

// What somebody would write who reads frames with plain liburing: the best that
// we know, one class for each way. All of them give each body, contiguous, to
// the same sink.

#ifndef TESTS_BENCH_LOOPS_FRAMES_BY_HAND_H_
#define TESTS_BENCH_LOOPS_FRAMES_BY_HAND_H_

#include <liburing.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "bpfgrant/programs/frame_reader.h"
// Behind the generated one.
#include "frame_reader.h"

namespace bpfgrant::bench {

// The reader's own work on a frame: the least there is, it touches the body at
// both ends.
struct FrameSink {
  uint64_t frames = 0;
  uint64_t bytes = 0;
  uint64_t sum = 0;

  void Take(uint32_t worker, const std::byte* body, uint32_t length) {
    ++frames;
    bytes += length;
    sum += worker;
    if (length != 0) {
      sum += static_cast<uint8_t>(body[0]) +
             static_cast<uint8_t>(body[length - 1]);
    }
  }
};

// Slabs of one size for each worker, in turn: whoever gets a body keeps it for
// a while, so the next one needs another. As many as the loop has.
class HandSlabs {
 public:
  HandSlabs(uint32_t workers, size_t bytes, uint32_t count)
      : bytes_(bytes), count_(count), memory_(workers * count * bytes) {}
  std::byte* Of(uint32_t worker) {
    return memory_.data() + (worker * count_ + next_++ % count_) * bytes_;
  }

 private:
  size_t bytes_;
  uint32_t count_;
  uint32_t next_ = 0;
  std::vector<std::byte> memory_;
};

// Slabs of each worker for bodies of so many bytes, in all ways of reading.
inline uint32_t SlabsFor(size_t bytes) {
  return std::clamp<uint32_t>((256 << 10) / bytes, 4, 128);
}

class HandReader {
 public:
  enum class Way {
    kHeaderThenBody,  // two requests for each frame
    kBodyAndHeader,   // one: a body, and the next header (readv)
    kBulkCopyOut,     // as much as there is, bodies copied to slabs
    kBulkMultishot,   // the same, with multishot and provided buffers
    kBulkInPlace,     // as much as there is, bodies left where they came
  };
  static constexpr uint32_t kWorkers = 4;
  static constexpr size_t kLongest = 64 << 10;

  // Bodies of at most `length` bytes.
  HandReader(Way way, uint32_t length, const std::vector<int>& sockets);
  ~HandReader();
  HandReader(const HandReader&) = delete;
  HandReader& operator=(const HandReader&) = delete;

  // Reads until the sink has so many frames.
  void Run(uint64_t frames);
  const FrameSink& sink() const { return sink_; }
  uint64_t enters() const { return enters_; }
  uint64_t copied() const { return copied_; }

 private:
  static constexpr size_t kStaging = 256 << 10;
  static constexpr unsigned kProvided = 32;
  static constexpr size_t kProvidedBytes = 32 << 10;

  struct Stream {
    frame_header header{};
    frame_header next{};
    size_t have = 0;  // of the header, or of the body
    bool in_body = false;
    std::byte* slab = nullptr;
    iovec vectors[2] = {};
    std::unique_ptr<std::byte[]> staging;  // bulk
    size_t start = 0;
    size_t end = 0;
  };

  void Ask(uint32_t index);
  void Came(uint32_t index, uint32_t bytes);
  void CameDirect(Stream& stream, uint32_t bytes);
  void CameBulk(Stream& stream, uint32_t bytes);
  void CameProvided(uint32_t index, const io_uring_cqe& cqe);
  void Feed(Stream& stream, const std::byte* data, size_t bytes);
  void BeginBody(Stream& stream);
  void SetUpBuffers();

  Way way_;
  io_uring ring_{};
  std::vector<Stream> streams_;
  FrameSink sink_;
  HandSlabs slabs_;
  std::vector<std::byte> provided_;
  io_uring_buf_ring* buffers_ = nullptr;
  uint64_t enters_ = 0;
  uint64_t copied_ = 0;
};

}  // namespace bpfgrant::bench

#endif  // TESTS_BENCH_LOOPS_FRAMES_BY_HAND_H_

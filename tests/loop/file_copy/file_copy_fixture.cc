#include "tests/loop/file_copy/file_copy_fixture.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

BPFGRANT_NATIVE_LOOP(file_copy);

namespace bpfgrant::test {
namespace {

constexpr size_t kBufferBytes = size_t{4} << 20;

}  // namespace

std::string Content(size_t size) {
  std::string content(size, '\0');
  uint64_t state = 4711;
  for (char& byte : content) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<char>(state >> 56);
  }
  return content;
}

void FileCopyTest::SetUp() {
  PlaceTest::SetUp();
  if (IsSkipped() || HasFatalFailure() || !InPlace()) return;
  buffers_.resize(kBufferBytes);
  source_ = folder_.Write("source", "");
  destination_ = folder_.Write("destination", "");
  from_.reset(open(source_.c_str(), O_RDONLY | O_CLOEXEC));
  to_.reset(open(destination_.c_str(), O_WRONLY | O_CLOEXEC));
  Open();
}

void FileCopyTest::Open(Loop::Options options) {
  options.program = "file_copy";
  options.interface = "file_copy/1";
  options.native = &bpfgrant_native_file_copy;
  options.memory_bytes = (sizeof(file_copy_memory) + 4095) / 4096 * 4096;
  auto loop = Create(std::move(options));
  ASSERT_TRUE(loop.ok()) << loop.status();
  loop_.emplace(*std::move(loop));
  memory_ = loop_->memory_as<file_copy_memory>();
  ASSERT_NE(memory_, nullptr);
}

void FileCopyTest::Fill(const std::string& content) {
  folder_.Write("source", content);
  folder_.Write("destination", "");
}

void FileCopyTest::Set(uint32_t block, uint32_t lanes,
                       const std::vector<file_copy_extent>& extents) {
  ASSERT_LE(size_t{block} * lanes, buffers_.size());
  memory_->job = {};
  memory_->job.from_fd = from_.get();
  memory_->job.to_fd = to_.get();
  memory_->job.block = block;
  memory_->job.lanes = lanes;
  memory_->job.buffers = reinterpret_cast<uintptr_t>(buffers_.data());
  memory_->job.extents = extents.size();
  std::copy(extents.begin(), extents.end(), memory_->extents);
}

Loop::Stop FileCopyTest::Run() {
  auto stop = loop_->Run({.deadline = std::chrono::steady_clock::now() +
                                      std::chrono::seconds(60)});
  EXPECT_TRUE(stop.ok()) << stop.status();
  if (!stop.ok()) return {};
  EXPECT_EQ(stop->cause, Loop::Stop::Cause::kLoop) << Loop::Describe(*stop);
  return *stop;
}

void FileCopyTest::ExpectDone() {
  const Loop::Stop stop = Run();
  EXPECT_EQ(stop.why, BPFGRANT_STOP_DONE)
      << Loop::Describe(stop) << ", reason " << outcome().reason;
  EXPECT_EQ(outcome().reason, FILE_COPY_FINE);
}

void FileCopyTest::ExpectError(file_copy_reason reason, int error) {
  const Loop::Stop stop = Run();
  EXPECT_EQ(stop.why, BPFGRANT_STOP_ERROR) << Loop::Describe(stop);
  EXPECT_EQ(stop.detail, -error);
  EXPECT_EQ(outcome().reason, reason);
  EXPECT_EQ(outcome().error, -error);
}

void FileCopyTest::ExpectSame() {
  const std::string is = ReadFile(destination_), was = ReadFile(source_);
  EXPECT_EQ(is.size(), was.size());
  EXPECT_TRUE(is == was);
}

}  // namespace bpfgrant::test

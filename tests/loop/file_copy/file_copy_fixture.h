// The loop `file_copy` for tests, with a source and a destination.

#ifndef TESTS_LOOP_FILE_COPY_FILE_COPY_FIXTURE_H_
#define TESTS_LOOP_FILE_COPY_FILE_COPY_FIXTURE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bpf-programs/file_copy/file_copy.h"
#include "proto/wire/unique_fd.h"
#include "tests/loop/place.h"

namespace bpfgrant::test {

// So many bytes, no two blocks of them alike.
std::string Content(size_t size);

class FileCopyTest : public PlaceTest {
 protected:
  FileCopyTest() : PlaceTest("file_copy") {}

  // Makes the loop and two empty files.
  void SetUp() override;
  void Open(Loop::Options options = {});

  Loop& loop() { return *loop_; }
  file_copy_memory& memory() { return *memory_; }
  file_copy_job& job() { return memory_->job; }
  const file_copy_outcome& outcome() { return memory_->outcome; }

  const std::string& source() const { return source_; }
  const std::string& destination() const { return destination_; }
  int from() const { return from_.get(); }
  int to() const { return to_.get(); }
  // The source becomes this, and the destination empty.
  void Fill(const std::string& content);

  // The job: these extents; all of the source without any.
  void Set(uint32_t block, uint32_t lanes,
           const std::vector<file_copy_extent>& extents = {
               {0, 0, FILE_COPY_TO_END}});
  char* buffers() { return buffers_.data(); }
  size_t buffer_bytes() const { return buffers_.size(); }

  Loop::Stop Run();
  void ExpectDone();
  void ExpectError(file_copy_reason reason, int error);
  // Without printing either.
  void ExpectSame();

 private:
  Folder folder_;
  std::string source_, destination_;
  UniqueFd from_, to_;
  std::vector<char> buffers_;
  std::optional<Loop> loop_;
  file_copy_memory* memory_ = nullptr;
};

}  // namespace bpfgrant::test

#endif  // TESTS_LOOP_FILE_COPY_FILE_COPY_FIXTURE_H_

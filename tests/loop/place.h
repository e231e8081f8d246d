// A test that runs in both places where a loop can run: as the native twin in
// the test's own process, on every kernel, and in the kernel, where a real
// daemon hands the loop to a process without privilege.
//
//   class EchoTest : public bpfgrant::test::PlaceTest {
//    protected:
//     EchoTest() : PlaceTest("echo") {}
//   };
//   BPFGRANT_PLACES(EchoTest);
//
//   TEST_P(EchoTest, Echoes) {
//     BPFGRANT_IN_PLACE();
//     auto loop = Create({.program = "echo", .interface = "echo/1",
//                         .native = &bpfgrant_native_echo, ...});
//
// In the kernel the test executes itself as nobody (tests/harness/as_nobody.h).
// Both see the same results or fail.

#ifndef TESTS_LOOP_PLACE_H_
#define TESTS_LOOP_PLACE_H_

#include <memory>
#include <ostream>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/loop.h"
#include "gtest/gtest.h"
#include "tests/harness/private_folder.h"

namespace bpfgrant::test {

class PlaceTest : public ::testing::TestWithParam<Loop::Place> {
 protected:
  explicit PlaceTest(std::string program) : program_(std::move(program)) {}

  void SetUp() override;

  // False in the process that has had another one run the case.
  bool InPlace() const { return in_place_; }
  bool InKernel() const { return GetParam() == Loop::Place::kKernel; }

  // The loop, here: `options` with `where` filled in. Checks where it came to
  // run.
  absl::StatusOr<Loop> Create(Loop::Options options);

 private:
  const std::string program_;
  bool in_place_ = true;
  std::unique_ptr<Connection> connection_;
};

// A folder of this process's own, removed with all that is in it.
class Folder {
 public:
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  // The file's path, with this content.
  std::string Write(const std::string& name, const std::string& content) const;

 private:
  const PrivateFolder folder_;
  const std::string path_ = folder_.path();
};
std::string ReadFile(const std::string& path);

}  // namespace bpfgrant::test

namespace bpfgrant {

// CTest names the case by it.
inline void PrintTo(Loop::Place place, std::ostream* out) {
  *out << (place == Loop::Place::kKernel ? "in the kernel" : "in the process");
}

}  // namespace bpfgrant

#define BPFGRANT_IN_PLACE() \
  if (!InPlace()) return

#define BPFGRANT_PLACES(suite)                                             \
  INSTANTIATE_TEST_SUITE_P(                                                \
      In, suite,                                                           \
      ::testing::Values(::bpfgrant::Loop::Place::kProcess,                 \
                        ::bpfgrant::Loop::Place::kKernel),                 \
      [](const ::testing::TestParamInfo<::bpfgrant::Loop::Place>& info) {  \
        return std::string(info.param == ::bpfgrant::Loop::Place::kProcess \
                               ? "Process"                                 \
                               : "Kernel");                                \
      })

#endif  // TESTS_LOOP_PLACE_H_

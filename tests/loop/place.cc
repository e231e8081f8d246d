#include "tests/loop/place.h"

#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "tests/harness/as_nobody.h"
#include "tests/harness/kernel_features.h"
#include "tests/harness/skip.h"

namespace bpfgrant::test {

void PlaceTest::SetUp() {
  if (!InKernel()) return;
  if (SocketForNobody() != nullptr) {
    auto connection = Connection::Connect({.path = SocketForNobody()});
    ASSERT_TRUE(connection.ok()) << connection.status();
    connection_ = std::make_unique<Connection>(*std::move(connection));
    return;
  }
  in_place_ = false;
  BPFGRANT_REQUIRE_KERNEL(KernelHasLoops(),
                          "io_uring loops (struct io_uring_bpf_ops)");
  BPFGRANT_REQUIRE_CAPABILITIES(CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE);
  RunThisTestAsNobody(program_);
}

absl::StatusOr<Loop> PlaceTest::Create(Loop::Options options) {
  options.where =
      InKernel() ? Loop::Where::kKernelOnly : Loop::Where::kProcessOnly;
  auto loop = Loop::Create(connection_.get(), options);
  // REASON_BUSY says to try again; an emulated machine can be busy for long.
  for (int i = 0; i < 5 && absl::IsUnavailable(loop.status()); ++i) {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    loop = Loop::Create(connection_.get(), options);
  }
  if (loop.ok()) {
    EXPECT_EQ(loop->place(), GetParam());
  }
  return loop;
}

std::string Folder::Write(const std::string& name,
                          const std::string& content) const {
  std::string path = File(name);
  std::ofstream file(path, std::ios::binary);
  file << content;
  EXPECT_TRUE(file.good()) << path;
  return path;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

}  // namespace bpfgrant::test

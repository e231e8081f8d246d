// The programs that this build ships, by the path they take in the daemon.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "daemon/loader/catalog.h"
#include "daemon/loader/kernel.h"
#include "tests/catalog/catalog_fixture.h"

namespace bpfgrant::daemon {
namespace {

TEST(ShippedProgramsTest, AreAllAvailable) {
  REQUIRE_BPF();
  // Copied: where the build stands, others may be able to write.
  const TemporaryFolder folder;
  for (const auto& file : std::filesystem::directory_iterator(CATALOG_FOLDER)) {
    if (!file.is_regular_file()) continue;
    std::ifstream from(file.path(), std::ios::binary);
    folder.Write(file.path().filename(),
                 std::string{std::istreambuf_iterator<char>(from), {}});
  }
  const v1::KernelFacts kernel = ReadKernelFacts();
  auto admission = Admission::Create(kernel, {});
  ASSERT_TRUE(admission.ok()) << admission.status();
  const auto catalog = Catalog::Read({folder.path()}, *admission);
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  EXPECT_GE(catalog->size(), 2u);
  const Snapshot snapshot = catalog->Describe({});
  for (const CatalogEntry& entry : snapshot.entry()) {
    const v1::DescribeReply& description = entry.description();
    const bool expected =
        !description.detail().has_loop() || kernel.io_uring_loops();
    EXPECT_EQ(description.summary().available(), expected)
        << description.refusal() << "\n"
        << description.verifier_log();
    EXPECT_FALSE(description.header().empty());
    EXPECT_FALSE(description.irrevocable().empty());
  }
}

}  // namespace
}  // namespace bpfgrant::daemon

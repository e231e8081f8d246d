// Records that outlive whoever wrote them, and what else may be found there.

#include "daemon/broker/ledger_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bpfgrant::broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Texts(const LedgerFile& file) {
  std::vector<std::string> texts;
  for (const LedgerFile::Found& found : file.Read()) {
    texts.push_back(found.bytes);
  }
  return texts;
}

LedgerFile Made() {
  auto file = LedgerFile::Create();
  EXPECT_TRUE(file.ok()) << file.status();
  return *std::move(file);
}

// As the next broker gets it.
absl::StatusOr<LedgerFile> Again(const LedgerFile& file) {
  return LedgerFile::Open(UniqueFd(fcntl(file.fd(), F_DUPFD_CLOEXEC, 0)));
}

TEST(LedgerFileTest, IsFoundAgain) {
  LedgerFile file = Made();
  const auto first = file.Add("first");
  file.Add("second");
  ASSERT_TRUE(first.has_value());
  file.Mark(*first);
  const auto again = Again(file);
  ASSERT_TRUE(again.ok()) << again.status();
  const auto found = again->Read();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].bytes, "first");
  EXPECT_TRUE(found[0].marked);
  EXPECT_EQ(found[1].bytes, "second");
  EXPECT_FALSE(found[1].marked);
  EXPECT_LT(found[0].number, found[1].number);
  EXPECT_EQ(again->restarts(), 1u);
}

TEST(LedgerFileTest, NumbersAreNeverGivenOutTwice) {
  LedgerFile file = Made();
  EXPECT_EQ(file.NextGrant(), 1u);
  EXPECT_EQ(file.NextGrant(), 2u);
  EXPECT_EQ(file.NextSession(), 1u);
  auto again = Again(file);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->NextGrant(), 3u);
  EXPECT_EQ(again->NextSession(), 2u);
}

TEST(LedgerFileTest, ARecordIsReplacedWholly) {
  LedgerFile file = Made();
  auto place = file.Add("old");
  file.Add("other");
  place = file.Replace(place, "new");
  ASSERT_TRUE(place.has_value());
  EXPECT_THAT(Texts(file), ::testing::UnorderedElementsAre("new", "other"));
  file.Remove(*place);
  EXPECT_THAT(Texts(file), ElementsAre("other"));
}

TEST(LedgerFileTest, WhatIsTooLargeChangesNothing) {
  LedgerFile file = Made();
  const auto place = file.Add("old");
  const std::string large(LedgerFile::kMaxRecordBytes + 1, 'x');
  EXPECT_EQ(file.Add(large), std::nullopt);
  EXPECT_EQ(file.Replace(place, large), std::nullopt);
  EXPECT_THAT(Texts(file), ElementsAre("old"));
  const std::string fits(LedgerFile::kMaxRecordBytes, 'x');
  EXPECT_TRUE(file.Replace(place, fits).has_value());
  EXPECT_THAT(Texts(file), ElementsAre(fits));
}

TEST(LedgerFileTest, PlacesAreUsedAgain) {
  LedgerFile file = Made();
  for (uint32_t i = 0; i < 2 * LedgerFile::kPlaces; ++i) {
    const auto place = file.Add("record");
    ASSERT_TRUE(place.has_value());
    file.Remove(*place);
  }
  struct stat status {};
  ASSERT_EQ(fstat(file.fd(), &status), 0);
  EXPECT_LE(status.st_blocks * 512, 64 * 1024);
}

TEST(LedgerFileTest, IsFullAtItsLimit) {
  LedgerFile file = Made();
  for (uint32_t i = 0; i < LedgerFile::kPlaces; ++i) {
    ASSERT_TRUE(file.Add("").has_value());
  }
  EXPECT_EQ(file.Add(""), std::nullopt);
  const auto again = Again(file);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->Read().size(), LedgerFile::kPlaces);
}

// Nothing is read into being by looking at it.
TEST(LedgerFileTest, AnEmptyOneTakesNoMemory) {
  LedgerFile file = Made();
  const auto again = Again(file);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(again->Read(), IsEmpty());
  struct stat status {};
  ASSERT_EQ(fstat(file.fd(), &status), 0);
  EXPECT_LE(status.st_blocks * 512, 8 * 1024);
}

TEST(LedgerFileTest, NobodyMakesItShorter) {
  const LedgerFile file = Made();
  EXPECT_LT(ftruncate(file.fd(), 0), 0);
}

TEST(LedgerFileTest, AnotherFileIsRefused) {
  UniqueFd short_one(memfd_create("short", MFD_CLOEXEC));
  EXPECT_FALSE(LedgerFile::Open(std::move(short_one)).ok());
  UniqueFd no_seals(memfd_create("no seals", MFD_CLOEXEC));
  struct stat status {};
  ASSERT_EQ(fstat(Made().fd(), &status), 0);
  ASSERT_EQ(ftruncate(no_seals.get(), status.st_size), 0);
  EXPECT_FALSE(LedgerFile::Open(std::move(no_seals)).ok());
  EXPECT_FALSE(LedgerFile::Open(UniqueFd(open("/dev/null", O_RDWR))).ok());
}

// Whatever stands in it: nothing is read beyond a record, and what is no record
// is none.
TEST(LedgerFileTest, RubbishIsNoRecord) {
  LedgerFile file = Made();
  const auto place = file.Add("record");
  ASSERT_TRUE(place.has_value());
  const off_t entry = static_cast<off_t>(LedgerFile::kPlaceBytes);
  const uint32_t size = 0xffffffff;
  ASSERT_EQ(pwrite(file.fd(), &size, sizeof(size), entry + 4), 4);
  const auto found = file.Read();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].bytes.size(), LedgerFile::kMaxRecordBytes);
  const uint32_t state = 77;
  ASSERT_EQ(pwrite(file.fd(), &state, sizeof(state), entry), 4);
  EXPECT_THAT(file.Read(), IsEmpty());
  // As many places as there cannot be.
  const uint64_t used = ~uint64_t{0};
  ASSERT_EQ(pwrite(file.fd(), &used, sizeof(used), 40), 8);
  EXPECT_TRUE(Again(file).ok());
  const uint64_t form = 1;
  ASSERT_EQ(pwrite(file.fd(), &form, sizeof(form), 0), 8);
  EXPECT_FALSE(Again(file).ok());
}

}  // namespace
}  // namespace bpfgrant::broker

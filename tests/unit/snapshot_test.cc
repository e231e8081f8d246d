#include "daemon/broker/snapshot.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace bpfgrant::broker {
namespace {

UniqueFd MemoryFile(const std::string& bytes) {
  UniqueFd file(memfd_create("snapshot", MFD_CLOEXEC));
  EXPECT_EQ(write(file.get(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  return file;
}

absl::StatusCode ReadCode(const UniqueFd& fd) {
  return Snapshot::Read(fd).status().code();
}

daemon::Snapshot Message() {
  daemon::Snapshot message;
  for (const char* name : {"sampler", "broken"}) {
    v1::DescribeReply& description =
        *message.add_entry()->mutable_description();
    description.mutable_summary()->set_name(name);
  }
  message.mutable_entry(0)
      ->mutable_description()
      ->mutable_summary()
      ->set_available(true);
  message.mutable_entry(0)
      ->mutable_description()
      ->mutable_detail()
      ->add_allowed_delivery(v1::DELIVERY_ATTACH);
  message.mutable_entry(1)
      ->mutable_description()
      ->mutable_detail()
      ->set_fd_danger("for the reason that");
  daemon::CompiledRule& rule = *message.add_rule();
  rule.set_name("r");
  rule.set_everyone(true);
  rule.add_program("sampler");
  rule.set_quota(2);
  return message;
}

TEST(SnapshotTest, HoldsProgramsAndRules) {
  const auto snapshot =
      Snapshot::Read(MemoryFile(Message().SerializeAsString()));
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->programs().size(), 2u);
  const Program* sampler = (*snapshot)->Find("sampler");
  ASSERT_NE(sampler, nullptr);
  EXPECT_EQ(sampler->name(), "sampler");
  EXPECT_TRUE(sampler->available());
  EXPECT_FALSE(sampler->dangerous());
  EXPECT_TRUE(sampler->Allows(v1::DELIVERY_ATTACH));
  EXPECT_FALSE(sampler->Allows(v1::DELIVERY_PROGRAM));
  EXPECT_FALSE((*snapshot)->Find("broken")->available());
  EXPECT_TRUE((*snapshot)->Find("broken")->dangerous());
  EXPECT_EQ((*snapshot)->Find("absent"), nullptr);
  EXPECT_EQ((*snapshot)->Find(""), nullptr);
  EXPECT_TRUE((*snapshot)->rules().Decide({1, 1, {}}, "sampler").allowed());
}

TEST(SnapshotTest, RefusesBrokenBytes) {
  EXPECT_EQ(ReadCode(MemoryFile("\xff\xff\xff\xff")),
            absl::StatusCode::kInternal);
  std::string bytes = Message().SerializeAsString();
  bytes.pop_back();
  EXPECT_EQ(ReadCode(MemoryFile(bytes)), absl::StatusCode::kInternal);
}

// No program and no rule: allowed, and nobody may have anything.
TEST(SnapshotTest, EmptyFileIsTheEmptyCatalog) {
  const auto snapshot = Snapshot::Read(MemoryFile(""));
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_TRUE((*snapshot)->programs().empty());
  EXPECT_EQ((*snapshot)->rules().size(), 0u);
}

TEST(SnapshotTest, RefusesNothingAtAll) {
  EXPECT_EQ(ReadCode(UniqueFd()), absl::StatusCode::kInternal);
}

TEST(SnapshotTest, RefusesWhatIsNoFile) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const UniqueFd read_end(ends[0]);
  const UniqueFd write_end(ends[1]);
  EXPECT_EQ(ReadCode(read_end), absl::StatusCode::kInternal);
}

// As the loader hands it over.
TEST(SnapshotTest, ReadsASealedFile) {
  UniqueFd file(memfd_create("snapshot", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  const std::string bytes = Message().SerializeAsString();
  ASSERT_EQ(write(file.get(), bytes.data(), bytes.size()),
            static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(fcntl(file.get(), F_ADD_SEALS,
                  F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
            0);
  EXPECT_TRUE(Snapshot::Read(file).ok());
}

}  // namespace
}  // namespace bpfgrant::broker

// Each row of the language's tables.

#include <fcntl.h>
#include <linux/stat.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "proto/wire/unique_fd.h"
#include "tests/loop/chain/chain_fixture.h"

namespace bpfgrant::test {
namespace {

class ChainLanguageTest : public ChainTest {
 protected:
  void SetUp() override {
    ChainTest::SetUp();
    if (IsSkipped() || !InPlace()) return;
    ASSERT_NO_FATAL_FAILURE(Open());
    path_ = folder_.Write("digits", "0123456789");
    file_.reset(open(path_.c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(file_.valid());
  }

  Parts Read(chain_operand length, chain_operand offset = Is(0)) {
    return {Is(file_.get()), At(buffer_), length, offset};
  }
  std::string Text(size_t size) const { return std::string(buffer_, size); }

  Folder folder_;
  std::string path_;
  UniqueFd file_;
  char buffer_[4096] = {};
};

// --- Where a request's parts come from ---------------------------------------

TEST_P(ChainLanguageTest, ConstantParts) {
  BPFGRANT_IN_PLACE();
  Set({Template(IORING_OP_READ, Read(Is(3), Is(4)))});
  ExpectDone();
  EXPECT_EQ(Text(3), "456");
  EXPECT_EQ(result(0).result, 3);
  EXPECT_EQ(result(0).ending, CHAIN_ITEM_DONE);
  EXPECT_EQ(result(0).bytes, 3u);
  EXPECT_EQ(outcome().done, 1u);
  EXPECT_EQ(outcome().failed, 0u);
  EXPECT_EQ(outcome().requests, 1u);
  EXPECT_EQ(outcome().bytes, 3u);
  EXPECT_EQ(outcome().next, 1u);
}

TEST_P(ChainLanguageTest, ResultAsFd) {
  BPFGRANT_IN_PLACE();
  Set({Template(IORING_OP_OPENAT, {Is(AT_FDCWD), At(path_.c_str())}),
       Template(IORING_OP_READ, {From(CHAIN_RESULT, 0), At(buffer_), Is(10)}),
       Template(IORING_OP_CLOSE, {From(CHAIN_RESULT, 0)})});
  ExpectDone();
  EXPECT_EQ(Text(10), "0123456789");
  EXPECT_EQ(result(0).bytes, 10u);
  EXPECT_EQ(result(0).from, 2);
}

TEST_P(ChainLanguageTest, ResultAsLengthAndOffset) {
  BPFGRANT_IN_PLACE();
  Set({Template(IORING_OP_READ, Read(Is(2))),
       Template(IORING_OP_READ,
                Read(From(CHAIN_RESULT, 0, 2), From(CHAIN_RESULT, 0, 1, 3)))});
  ExpectDone();
  EXPECT_EQ(Text(4), "5678");
  EXPECT_EQ(result(0).result, 4);
}

TEST_P(ChainLanguageTest, NegativeScale) {
  BPFGRANT_IN_PLACE();
  Set({Template(IORING_OP_READ, Read(Is(2))),
       Template(IORING_OP_READ, Read(Is(2), From(CHAIN_RESULT, 0, -1, 10)))});
  ExpectDone();
  EXPECT_EQ(Text(2), "89");
}

TEST_P(ChainLanguageTest, ResultOfATemplateThatHasNone) {
  BPFGRANT_IN_PLACE();
  Set({Template(IORING_OP_READ, Read(Is(2), From(CHAIN_RESULT, 1, 1, 5)),
                {On(kAny, CHAIN_END)}),
       Template(IORING_OP_NOP, {})},
      2);
  ExpectDone();
  EXPECT_EQ(Text(2), "56");
}

TEST_P(ChainLanguageTest, SumAsOffset) {
  BPFGRANT_IN_PLACE();
  // The whole file into a buffer of 4, each time over the last.
  Set({Template(IORING_OP_READ,
                {From(CHAIN_FIELD, 0), At(buffer_), Is(4), From(CHAIN_SUM, 0)},
                {On(kPositive, CHAIN_GO_TO, 0)})},
      2);
  memory().items[0].fields[0] = memory().items[1].fields[0] = file_.get();
  ExpectDone();
  EXPECT_EQ(Text(4), "8967");
  // For the second item it began at 0 again.
  for (int item : {0, 1}) EXPECT_EQ(result(item).bytes, 10u);
  EXPECT_EQ(outcome().requests, 8u);
  EXPECT_EQ(outcome().bytes, 20u);
}

TEST_P(ChainLanguageTest, Fields) {
  BPFGRANT_IN_PLACE();
  Set({Template(IORING_OP_READ,
                {From(CHAIN_FIELD, 0), From(CHAIN_FIELD, 1),
                 From(CHAIN_FIELD, 2), From(CHAIN_FIELD, 3, 2)})},
      2);
  memory().items[0] = {{static_cast<__u64>(file_.get()),
                        reinterpret_cast<uintptr_t>(buffer_), 3, 1}};
  memory().items[1] = {{static_cast<__u64>(file_.get()),
                        reinterpret_cast<uintptr_t>(buffer_ + 3), 1, 4}};
  ExpectDone();
  EXPECT_EQ(Text(4), "2348");
}

// The size that one request found is the length of the next.
TEST_P(ChainLanguageTest, Word) {
  BPFGRANT_IN_PLACE();
  static_assert(offsetof(struct statx, stx_size) % 8 == 0);
  const chain_operand words = From(CHAIN_LANE, 0, sizeof(memory().words[0]),
                                   reinterpret_cast<uintptr_t>(memory().words));
  Set({Template(IORING_OP_STATX,
                {Is(AT_FDCWD), At(path_.c_str()), Is(STATX_SIZE), words}),
       Template(IORING_OP_READ,
                Read(From(CHAIN_WORD, offsetof(struct statx, stx_size) / 8),
                     Is(1)))});
  ExpectDone();
  EXPECT_EQ(result(0).result, 9);
  EXPECT_EQ(Text(9), "123456789");
}

TEST_P(ChainLanguageTest, ItemAndLane) {
  BPFGRANT_IN_PLACE();
  constexpr uint32_t kItems = 10, kLanes = 4;
  // Each item its own byte, and each lane its own place.
  Set({Template(IORING_OP_READ,
                {Is(file_.get()),
                 From(CHAIN_LANE, 0, 64, reinterpret_cast<uintptr_t>(buffer_)),
                 Is(1), From(CHAIN_ITEM)}),
       Template(IORING_OP_WRITE,
                {Is(file_.get()),
                 From(CHAIN_LANE, 0, 64, reinterpret_cast<uintptr_t>(buffer_)),
                 Is(1), From(CHAIN_ITEM, 0, 1, 10)})},
      kItems, kLanes);
  ExpectDone();
  EXPECT_EQ(ReadFile(path_), "01234567890123456789");
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    EXPECT_NE(buffer_[64 * lane], '\0') << lane;
  }
  EXPECT_EQ(buffer_[64 * kLanes], '\0');
}

TEST_P(ChainLanguageTest, FileSlotsByLane) {
  BPFGRANT_IN_PLACE();
  ASSERT_NO_FATAL_FAILURE(Open({.files = {-1, -1, -1}}));
  // The slot is its number and, where one is made or given up, one more.
  Set({Template(IORING_OP_OPENAT, {.fd = Is(AT_FDCWD),
                                   .address = At(path_.c_str()),
                                   .file = From(CHAIN_LANE, 0, 1, 1)}),
       Template(IORING_OP_READ, {From(CHAIN_LANE), At(buffer_), Is(10)}, {},
                IOSQE_FIXED_FILE),
       Template(IORING_OP_CLOSE, {.file = From(CHAIN_LANE, 0, 1, 1)})},
      9, 3);
  ExpectDone();
  EXPECT_EQ(outcome().done, 9u);
  EXPECT_EQ(outcome().bytes, 90u);
}

TEST_P(ChainLanguageTest, RegisteredBuffer) {
  BPFGRANT_IN_PLACE();
  char other[64];
  ASSERT_NO_FATAL_FAILURE(
      Open({.buffers = {{other, sizeof(other)}, {buffer_, sizeof(buffer_)}}}));
  Set({Template(IORING_OP_READ_FIXED, Read(Is(5)))});
  memory().templates[0].buffer = 1;
  ExpectDone();
  EXPECT_EQ(Text(5), "01234");
  // The buffer's index counts: this address is not in the other one.
  Set({Template(IORING_OP_READ_FIXED, Read(Is(5)))});
  ExpectDone();
  EXPECT_EQ(result(0).result, -EFAULT);
}

TEST_P(ChainLanguageTest, OpFlags) {
  BPFGRANT_IN_PLACE();
  const std::string made = folder_.File("made");
  Set({Template(IORING_OP_OPENAT, {Is(AT_FDCWD), At(made.c_str()), Is(0640)},
                {}, 0, O_CREAT | O_EXCL | O_WRONLY),
       Template(IORING_OP_CLOSE, {From(CHAIN_RESULT, 0)})},
      2);
  ExpectDone();
  EXPECT_EQ(result(0).ending, CHAIN_ITEM_DONE);
  EXPECT_EQ(result(1).ending, CHAIN_ITEM_FAILED);
  EXPECT_EQ(result(1).result, -EEXIST);
}

// --- What a result decides ---------------------------------------------------

struct Decision {
  const char* what;
  uint32_t length;  // to read of ten bytes; 0xffff: of an fd that is none
  std::vector<chain_rule> rules;
  // What should come of it. Behind the read stand two NOPs, the first of which
  // ends the item.
  uint8_t from;
  chain_ending ending;
  int32_t result;
  uint64_t requests;
};
constexpr uint32_t kBad = 0xffff;

const Decision kDecisions[] = {
    {"no rule", 4, {}, 1, CHAIN_ITEM_DONE, 0, 2},
    {"no rule, error", kBad, {}, 0, CHAIN_ITEM_FAILED, -EBADF, 1},
    {"next", 4, {On(kAny, CHAIN_NEXT)}, 1, CHAIN_ITEM_DONE, 0, 2},
    {"next, error", kBad, {On(kAny, CHAIN_NEXT)}, 1, CHAIN_ITEM_DONE, 0, 2},
    {"go to", 4, {On(kAny, CHAIN_GO_TO, 2)}, 2, CHAIN_ITEM_DONE, 0, 2},
    {"go to the end", 4, {On(kAny, CHAIN_GO_TO, 3)}, 0, CHAIN_ITEM_DONE, 4, 1},
    {"end", 4, {On(kAny, CHAIN_END)}, 0, CHAIN_ITEM_DONE, 4, 1},
    {"end, error", kBad, {On(kAny, CHAIN_END)}, 0, CHAIN_ITEM_DONE, -EBADF, 1},
    {"rest of all", 10, {On(kAny, CHAIN_REST)}, 1, CHAIN_ITEM_DONE, 0, 2},
    // 10, then 0 at the file's end, which needs no patience to be an end.
    {"rest of a short one",
     16,
     {On(kPositive, CHAIN_REST), On(kZero, CHAIN_END)},
     0,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"below the range", 4, {On({5, 9}, CHAIN_END)}, 1, CHAIN_ITEM_DONE, 0, 2},
    {"above the range", 4, {On({1, 3}, CHAIN_END)}, 1, CHAIN_ITEM_DONE, 0, 2},
    {"low of the range", 4, {On({4, 9}, CHAIN_END)}, 0, CHAIN_ITEM_DONE, 4, 1},
    {"high of the range", 4, {On({1, 4}, CHAIN_END)}, 0, CHAIN_ITEM_DONE, 4, 1},
    {"one error",
     kBad,
     {On({-EBADF, -EBADF}, CHAIN_GO_TO, 2)},
     2,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"another error",
     kBad,
     {On({-EIO, -EIO}, CHAIN_GO_TO, 2)},
     0,
     CHAIN_ITEM_FAILED,
     -EBADF,
     1},
    {"the first that holds",
     4,
     {On(kZero, CHAIN_END), On(kPositive, CHAIN_GO_TO, 2), On(kAny, CHAIN_END)},
     2,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"the fourth",
     4,
     {On(kZero, CHAIN_NEXT), On(kNegative, CHAIN_NEXT), On({5, 5}, CHAIN_NEXT),
      On(kAny, CHAIN_GO_TO, 2)},
     2,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"behind the list's end",
     4,
     {On(kAny, CHAIN_NO_RULE), On(kAny, CHAIN_GO_TO, 2)},
     1,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"short: no",
     10,
     {On(kAny, CHAIN_END, 0, CHAIN_SHORT)},
     1,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"short: yes",
     11,
     {On(kAny, CHAIN_END, 0, CHAIN_SHORT)},
     0,
     CHAIN_ITEM_DONE,
     10,
     1},
    {"full: no",
     11,
     {On(kAny, CHAIN_END, 0, CHAIN_FULL)},
     1,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"full: yes",
     10,
     {On(kAny, CHAIN_END, 0, CHAIN_FULL)},
     0,
     CHAIN_ITEM_DONE,
     10,
     1},
    {"neither: nothing to read",
     0,
     {On(kAny, CHAIN_GO_TO, 2, CHAIN_SHORT),
      On(kAny, CHAIN_GO_TO, 2, CHAIN_FULL)},
     1,
     CHAIN_ITEM_DONE,
     0,
     2},
    {"neither: an error",
     kBad,
     {On(kAny, CHAIN_GO_TO, 2, CHAIN_SHORT),
      On(kAny, CHAIN_GO_TO, 2, CHAIN_FULL)},
     0,
     CHAIN_ITEM_FAILED,
     -EBADF,
     1},
    // It goes on, to clean up, and keeps what failed.
    {"failed",
     kBad,
     {On(kNegative, CHAIN_GO_TO, 2, CHAIN_ANY, CHAIN_FAILED)},
     0,
     CHAIN_ITEM_FAILED,
     -EBADF,
     2},
    {"failed without an error",
     4,
     {On(kAny, CHAIN_END, 0, CHAIN_ANY, CHAIN_FAILED)},
     0,
     CHAIN_ITEM_FAILED,
     4,
     1},
    {"back, error",
     kBad,
     {On(kAny, CHAIN_GO_TO, 0)},
     0,
     CHAIN_ITEM_PATIENCE,
     -EBADF,
     3},
    {"rest of an error",
     kBad,
     {On(kAny, CHAIN_REST)},
     0,
     CHAIN_ITEM_PATIENCE,
     -EBADF,
     3},
    {"back, without end",
     4,
     {On(kAny, CHAIN_GO_TO, 0)},
     0,
     CHAIN_ITEM_REQUESTS,
     4,
     20},
};

TEST_P(ChainLanguageTest, Decisions) {
  BPFGRANT_IN_PLACE();
  for (const Decision& row : kDecisions) {
    SCOPED_TRACE(row.what);
    Parts read = Read(Is(row.length));
    if (row.length == kBad) read.fd = Is(-1);
    chain_template first = Template(IORING_OP_READ, read);
    std::copy(row.rules.begin(), row.rules.end(), first.rules);
    Set({first, Template(IORING_OP_NOP, {Is(-1)}, {On(kAny, CHAIN_END)}),
         Template(IORING_OP_NOP, {Is(-1)})});
    memory().program.patience = 2;
    memory().program.item_requests = 20;
    ExpectDone();
    EXPECT_EQ(result(0).from, row.from);
    EXPECT_EQ(result(0).ending, row.ending);
    EXPECT_EQ(result(0).result, row.result);
    EXPECT_EQ(outcome().requests, row.requests);
    EXPECT_EQ(outcome().done, row.ending == CHAIN_ITEM_DONE ? 1u : 0u);
    EXPECT_EQ(outcome().failed, row.ending == CHAIN_ITEM_DONE ? 0u : 1u);
  }
}

TEST_P(ChainLanguageTest, LastBeginsNoFurtherItem) {
  BPFGRANT_IN_PLACE();
  // At the third item the file ends.
  Set({Template(IORING_OP_READ, Read(Is(5), From(CHAIN_ITEM, 0, 5)),
                {On(kZero, CHAIN_END, 0, CHAIN_ANY, CHAIN_LAST)})},
      8);
  ExpectDone();
  EXPECT_EQ(outcome().done, 3u);
  EXPECT_EQ(outcome().next, 3u);
  EXPECT_EQ(result(3).ending, CHAIN_ITEM_PENDING);
  // And goes on where it was told to.
  memory().program.first = outcome().next;
  memory().program.items = 5;
  ExpectDone();
  EXPECT_EQ(outcome().done, 1u);
  EXPECT_EQ(outcome().next, 4u);
}

TEST_P(ChainLanguageTest, LastAndFailed) {
  BPFGRANT_IN_PLACE();
  Set({Template(
          IORING_OP_READ, {Is(-1)},
          {On(kNegative, CHAIN_END, 0, CHAIN_ANY, CHAIN_LAST | CHAIN_FAILED)})},
      8);
  ExpectDone();
  EXPECT_EQ(outcome().failed, 1u);
  EXPECT_EQ(outcome().next, 1u);
}

BPFGRANT_PLACES(ChainLanguageTest);

}  // namespace
}  // namespace bpfgrant::test

// A program's own numbers, its bounds, and every way to write it wrongly.

#include <functional>
#include <string>

#include "tests/loop/chain/chain_fixture.h"

namespace bpfgrant::test {
namespace {

class ChainProgramTest : public ChainTest {
 protected:
  void SetUp() override {
    ChainTest::SetUp();
    if (IsSkipped() || !InPlace()) return;
    ASSERT_NO_FATAL_FAILURE(Open());
  }
  static chain_template Nop() { return Template(IORING_OP_NOP, {Is(-1)}); }
  static chain_template NopForEver() {
    return Template(IORING_OP_NOP, {Is(-1)}, {On(kAny, CHAIN_GO_TO, 0)});
  }
};

TEST_P(ChainProgramTest, NoItems) {
  BPFGRANT_IN_PLACE();
  Set({Nop()}, 0, CHAIN_LANES);
  ExpectDone();
  EXPECT_EQ(outcome().done, 0u);
  EXPECT_EQ(outcome().requests, 0u);
  EXPECT_EQ(outcome().next, 0u);
  // And none behind the last one.
  memory().program.first = CHAIN_ITEMS;
  ExpectDone();
  EXPECT_EQ(outcome().next, static_cast<uint32_t>(CHAIN_ITEMS));
}

TEST_P(ChainProgramTest, EveryItem) {
  BPFGRANT_IN_PLACE();
  for (uint32_t lanes : {1, 3, CHAIN_LANES}) {
    Set({Nop()}, CHAIN_ITEMS, lanes);
    ExpectDone();
    EXPECT_EQ(outcome().done, static_cast<uint32_t>(CHAIN_ITEMS));
    for (size_t item = 0; item < CHAIN_ITEMS; ++item) {
      ASSERT_EQ(result(item).ending, CHAIN_ITEM_DONE) << item;
    }
  }
}

TEST_P(ChainProgramTest, EveryTemplate) {
  BPFGRANT_IN_PLACE();
  Set(std::vector<chain_template>(CHAIN_TEMPLATES, Nop()), 3, 2);
  ExpectDone();
  EXPECT_EQ(outcome().requests, 3u * CHAIN_TEMPLATES);
  EXPECT_EQ(result(2).from, CHAIN_TEMPLATES - 1);
}

TEST_P(ChainProgramTest, SomeItems) {
  BPFGRANT_IN_PLACE();
  Set({Nop()}, 4, 8);
  memory().program.first = 10;
  ExpectDone();
  EXPECT_EQ(outcome().done, 4u);
  EXPECT_EQ(outcome().next, 14u);
  EXPECT_EQ(result(9).ending, CHAIN_ITEM_PENDING);
  EXPECT_EQ(result(10).ending, CHAIN_ITEM_DONE);
  EXPECT_EQ(result(13).ending, CHAIN_ITEM_DONE);
  EXPECT_EQ(result(14).ending, CHAIN_ITEM_PENDING);
}

TEST_P(ChainProgramTest, RequestsOfAnItem) {
  BPFGRANT_IN_PLACE();
  Set({NopForEver()}, 3, 2);
  memory().program.patience = 1000;
  memory().program.item_requests = 7;
  ExpectDone();
  EXPECT_EQ(outcome().failed, 3u);
  EXPECT_EQ(outcome().requests, 21u);
  EXPECT_EQ(result(1).ending, CHAIN_ITEM_REQUESTS);
}

TEST_P(ChainProgramTest, Patience) {
  BPFGRANT_IN_PLACE();
  Set({NopForEver()}, 3, 2);
  memory().program.patience = 9;
  ExpectDone();
  EXPECT_EQ(outcome().requests, 30u);
  EXPECT_EQ(result(1).ending, CHAIN_ITEM_PATIENCE);
}

TEST_P(ChainProgramTest, Requests) {
  BPFGRANT_IN_PLACE();
  Set({NopForEver()}, 10, 2);
  memory().program.patience = 1000;
  memory().program.requests = 51;
  ExpectError(E2BIG);
  EXPECT_EQ(outcome().reason, CHAIN_SPENT);
  EXPECT_EQ(outcome().requests, 51u);
  EXPECT_EQ(outcome().next, 2u);
  EXPECT_EQ(outcome().failed, 2u);
  EXPECT_EQ(result(0).ending, CHAIN_ITEM_SPENT);
  EXPECT_EQ(result(1).ending, CHAIN_ITEM_SPENT);
  EXPECT_EQ(result(2).ending, CHAIN_ITEM_PENDING);
}

TEST_P(ChainProgramTest, RequestsThatAreJustEnough) {
  BPFGRANT_IN_PLACE();
  Set({Nop(), Nop()}, 10, 4);
  memory().program.requests = 20;
  ExpectDone();
  memory().program.requests = 19;
  ExpectError(E2BIG);
  EXPECT_EQ(outcome().done, 9u);
}

TEST_P(ChainProgramTest, Defaults) {
  BPFGRANT_IN_PLACE();
  Set({NopForEver()});
  memory().program.patience = ~0U;
  // Both are spent at once; the sum of all is what is looked at first.
  ExpectError(E2BIG);
  EXPECT_EQ(outcome().requests, CHAIN_DEFAULT_REQUESTS);
}

TEST_P(ChainProgramTest, Quit) {
  BPFGRANT_IN_PLACE();
  Set({Nop()}, 10, 2);
  memory().program.quit = 1;
  ExpectDone();
  EXPECT_EQ(outcome().next, 0u);
  memory().program.quit = 0;
  ExpectDone();
  EXPECT_EQ(outcome().done, 10u);
}

// --- What is wrong with it ---------------------------------------------------

struct Mistake {
  chain_reason reason;
  uint32_t in_template, in_part;
  std::function<void(chain_memory&)> make;
};

#define MISTAKE(reason, in_template, in_part, statement)             \
  {                                                                  \
    reason, in_template, in_part, [](chain_memory& m) { statement; } \
  }

const Mistake kMistakes[] = {
    MISTAKE(CHAIN_BAD_TEMPLATES, 0, 0, m.program.templates = 0),
    MISTAKE(CHAIN_BAD_TEMPLATES, 0, 0,
            m.program.templates = CHAIN_TEMPLATES + 1),
    MISTAKE(CHAIN_BAD_TEMPLATES, 0, 0, m.program.templates = ~0U),
    MISTAKE(CHAIN_BAD_ITEMS, 0, 0, m.program.items = CHAIN_ITEMS + 1),
    MISTAKE(CHAIN_BAD_ITEMS, 0, 0, m.program.first = CHAIN_ITEMS),
    MISTAKE(CHAIN_BAD_ITEMS, 0, 0, m.program.first = ~0U),
    MISTAKE(CHAIN_BAD_LANES, 0, 0, m.program.lanes = 0),
    MISTAKE(CHAIN_BAD_LANES, 0, 0, m.program.lanes = CHAIN_LANES + 1),
    MISTAKE(CHAIN_BAD_OPCODE, 1, 0,
            m.templates[1].opcode = IORING_OP_URING_CMD),
    MISTAKE(CHAIN_BAD_OPCODE, 1, 0, m.templates[1].opcode = 64),
    MISTAKE(CHAIN_BAD_OPCODE, 1, 0, m.templates[1].opcode = 255),
    MISTAKE(CHAIN_BAD_SQE_FLAGS, 2, 0, m.templates[2].sqe_flags = IOSQE_ASYNC),
    MISTAKE(CHAIN_BAD_SQE_FLAGS, 2, 0,
            m.templates[2].sqe_flags = IOSQE_CQE_SKIP_SUCCESS),
    MISTAKE(CHAIN_BAD_BUFFER, 2, 0, m.templates[2].buffer = 1),
    MISTAKE(CHAIN_MULTISHOT, 2, 0,
            m.templates[2] = Template(IORING_OP_POLL_ADD,
                                      {.length = Is(IORING_POLL_ADD_MULTI)})),
    MISTAKE(CHAIN_MULTISHOT, 2, 0,
            m.templates[2] =
                Template(IORING_OP_POLL_ADD, {.length = From(CHAIN_FIELD)})),
    MISTAKE(CHAIN_MULTISHOT, 2, 0,
            m.templates[2] = Template(IORING_OP_TIMEOUT, {}, {}, 0, 1 << 6)),
    MISTAKE(CHAIN_BAD_SOURCE, 1, CHAIN_ADDRESS,
            m.templates[1].parts[CHAIN_ADDRESS].source = CHAIN_SOURCES),
    MISTAKE(CHAIN_BAD_SOURCE, 1, CHAIN_FILE,
            m.templates[1].parts[CHAIN_FILE].source = 255),
    MISTAKE(CHAIN_BAD_INDEX, 2, CHAIN_FD,
            m.templates[2].parts[CHAIN_FD] = From(CHAIN_RESULT, 3)),
    MISTAKE(CHAIN_BAD_INDEX, 2, CHAIN_LENGTH,
            m.templates[2].parts[CHAIN_LENGTH] = From(CHAIN_SUM, 3)),
    MISTAKE(
        CHAIN_BAD_INDEX, 2, CHAIN_OFFSET,
        m.templates[2].parts[CHAIN_OFFSET] = From(CHAIN_FIELD, CHAIN_FIELDS)),
    MISTAKE(CHAIN_BAD_INDEX, 2, CHAIN_OFFSET,
            m.templates[2].parts[CHAIN_OFFSET] = From(CHAIN_WORD, CHAIN_WORDS)),
    MISTAKE(CHAIN_BAD_INDEX, 2, CHAIN_OFFSET,
            m.templates[2].parts[CHAIN_OFFSET] = From(CHAIN_ITEM, 1)),
    MISTAKE(CHAIN_BAD_INDEX, 2, CHAIN_OFFSET,
            m.templates[2].parts[CHAIN_OFFSET] = From(CHAIN_LANE, 1)),
    MISTAKE(CHAIN_BAD_INDEX, 2, CHAIN_OFFSET,
            m.templates[2].parts[CHAIN_OFFSET].index = 1),
    MISTAKE(CHAIN_BAD_SCALE, 0, CHAIN_OFFSET,
            m.templates[0].parts[CHAIN_OFFSET] = From(CHAIN_LANE, 0, 0)),
    MISTAKE(CHAIN_BAD_SCALE, 0, CHAIN_OFFSET,
            m.templates[0].parts[CHAIN_OFFSET].scale = 1),
    MISTAKE(CHAIN_BAD_RESERVED, 0, CHAIN_FD,
            m.templates[0].parts[CHAIN_FD].reserved = 1),
    MISTAKE(CHAIN_BAD_RANGE, 0, 0,
            m.templates[0].rules[0] = On({1, 0}, CHAIN_NEXT)),
    MISTAKE(CHAIN_BAD_THEN, 0, 0, m.templates[0].rules[0].then = CHAIN_THENS),
    MISTAKE(CHAIN_BAD_THEN, 0, 1,
            {
              m.templates[0].rules[0] = On(kAny, CHAIN_NEXT);
              m.templates[0].rules[1] = On(kAny, CHAIN_NEXT);
              m.templates[0].rules[1].then = 255;
            }),
    MISTAKE(CHAIN_BAD_TARGET, 0, 0,
            m.templates[0].rules[0] = On(kAny, CHAIN_GO_TO, 4)),
    MISTAKE(CHAIN_BAD_TARGET, 0, 0,
            m.templates[0].rules[0] = On(kAny, CHAIN_NEXT, 1)),
    MISTAKE(CHAIN_BAD_WHEN, 0, 0,
            m.templates[0].rules[0] = On(kAny, CHAIN_NEXT, 0, CHAIN_WHENS)),
    MISTAKE(CHAIN_BAD_MARK, 0, 0,
            m.templates[0].rules[0] = On(kAny, CHAIN_NEXT, 0, CHAIN_ANY, 4)),
    MISTAKE(CHAIN_NO_TRANSFER, 0, 0,
            m.templates[0].rules[0] = On(kAny, CHAIN_REST)),
    MISTAKE(CHAIN_NO_TRANSFER, 0, 0,
            m.templates[0].rules[0] = On(kAny, CHAIN_NEXT, 0, CHAIN_SHORT)),
    MISTAKE(CHAIN_NO_TRANSFER, 0, 3,
            {
              for (chain_rule& rule : m.templates[0].rules)
                rule = On(kAny, CHAIN_NEXT);
              m.templates[0].rules[3] = On(kAny, CHAIN_NEXT, 0, CHAIN_FULL);
            }),
};

TEST_P(ChainProgramTest, Mistakes) {
  BPFGRANT_IN_PLACE();
  // The others are not the program's.
  unsigned reasons = 1U << CHAIN_FINE | 1U << CHAIN_SPENT | 1U << CHAIN_STRANGE;
  for (size_t i = 0; i < std::size(kMistakes); ++i) {
    const Mistake& mistake = kMistakes[i];
    SCOPED_TRACE(i);
    Set({Nop(), Nop(), Nop()}, 2, 2);
    mistake.make(memory());
    ExpectError(EINVAL);
    EXPECT_EQ(outcome().reason, mistake.reason);
    EXPECT_EQ(outcome().in_template, mistake.in_template);
    EXPECT_EQ(outcome().in_part, mistake.in_part);
    EXPECT_EQ(outcome().requests, 0u);
    EXPECT_EQ(result(0).ending, CHAIN_ITEM_PENDING);
    reasons |= 1U << mistake.reason;
  }
  // None was forgotten, and the loop bears all of it.
  EXPECT_EQ(reasons, (1U << CHAIN_REASONS) - 1);
  Set({Nop()});
  ExpectDone();
}

// What stands behind the program's end is nobody's business.
TEST_P(ChainProgramTest, NothingBehindTheEnd) {
  BPFGRANT_IN_PLACE();
  Set({Nop()});
  memory().templates[1].opcode = 255;
  memory().templates[0].rules[1].then = 255;
  ExpectDone();
}

BPFGRANT_PLACES(ChainProgramTest);

}  // namespace
}  // namespace bpfgrant::test

#include "tests/loop/chain/chain_fixture.h"

#include <algorithm>
#include <cstring>
#include <utility>

BPFGRANT_NATIVE_LOOP(chain);

namespace bpfgrant::test {
chain_template Template(uint8_t opcode, const Parts& parts,
                        std::initializer_list<chain_rule> rules,
                        uint8_t sqe_flags, uint32_t op_flags) {
  chain_template made{};
  made.opcode = opcode;
  made.sqe_flags = sqe_flags;
  made.op_flags = op_flags;
  made.parts[CHAIN_FD] = parts.fd;
  made.parts[CHAIN_ADDRESS] = parts.address;
  made.parts[CHAIN_LENGTH] = parts.length;
  made.parts[CHAIN_OFFSET] = parts.offset;
  made.parts[CHAIN_FILE] = parts.file;
  std::copy(rules.begin(), rules.end(), made.rules);
  return made;
}

void ChainTest::Open(Loop::Options options) {
  options.program = "chain";
  options.interface = "chain/1";
  options.native = &bpfgrant_native_chain;
  options.memory_bytes = (sizeof(chain_memory) + 4095) / 4096 * 4096;
  auto loop = Create(std::move(options));
  ASSERT_TRUE(loop.ok()) << loop.status();
  loop_.emplace(*std::move(loop));
  memory_ = loop_->memory_as<chain_memory>();
  ASSERT_NE(memory_, nullptr);
}

void ChainTest::Set(const std::vector<chain_template>& templates,
                    uint32_t items, uint32_t lanes) {
  memory_->program = {};
  memory_->program.templates = templates.size();
  memory_->program.items = items;
  memory_->program.lanes = lanes;
  std::copy(templates.begin(), templates.end(), memory_->templates);
  std::memset(memory_->results, 0, sizeof(memory_->results));
}

Loop::Stop ChainTest::Run() {
  auto stop = loop_->Run({.deadline = std::chrono::steady_clock::now() +
                                      std::chrono::seconds(60)});
  EXPECT_TRUE(stop.ok()) << stop.status();
  if (!stop.ok()) return {};
  EXPECT_EQ(stop->cause, Loop::Stop::Cause::kLoop) << Loop::Describe(*stop);
  return *stop;
}

void ChainTest::ExpectDone() {
  const Loop::Stop stop = Run();
  EXPECT_EQ(stop.why, BPFGRANT_STOP_DONE)
      << Loop::Describe(stop) << ", reason " << outcome().reason
      << " in template " << outcome().in_template << ", part or rule "
      << outcome().in_part;
  EXPECT_EQ(outcome().reason, CHAIN_FINE);
}

void ChainTest::ExpectError(int error) {
  const Loop::Stop stop = Run();
  EXPECT_EQ(stop.why, BPFGRANT_STOP_ERROR);
  EXPECT_EQ(stop.detail, -error);
}

}  // namespace bpfgrant::test

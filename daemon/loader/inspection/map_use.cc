#include "daemon/loader/inspection/map_use.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "daemon/loader/inspection/helpers.h"

namespace bpfgrant::daemon {
namespace {

// Of one function; more is too large to follow.
constexpr size_t kMostFrames = 65536;

constexpr int kFrame = 10;  // the register that points to the stack's end
constexpr int kSlots = 512 / 8;

// What a register or a slot of the stack may be the address of.
struct Value {
  ObjectSet maps = 0;
  ObjectSet memory = 0;  // of their entries, or of globals

  // Whether that was something new.
  bool Add(const Value& other) {
    const Value before = *this;
    maps |= other.maps;
    memory |= other.memory;
    return maps != before.maps || memory != before.memory;
  }
  bool empty() const { return (maps | memory) == 0; }
};

struct Frame {
  std::array<Value, kFrame> registers;
  std::array<Value, kSlots> slots;

  bool Add(const Frame& other) {
    bool more = false;
    for (size_t i = 0; i < registers.size(); ++i) {
      more |= registers[i].Add(other.registers[i]);
    }
    for (size_t i = 0; i < slots.size(); ++i)
      more |= slots[i].Add(other.slots[i]);
    return more;
  }
};

bool IsJump(const bpf_insn& instruction) {
  const int kind = BPF_CLASS(instruction.code);
  const int operation = BPF_OP(instruction.code);
  return (kind == BPF_JMP || kind == BPF_JMP32) && operation != BPF_CALL &&
         operation != BPF_EXIT;
}

bool Is(const bpf_insn& instruction, int operation) {
  return BPF_CLASS(instruction.code) == BPF_JMP &&
         BPF_OP(instruction.code) == operation;
}

// Past the end, if it makes no sense.
size_t JumpFrom(size_t at, const bpf_insn& instruction) {
  const bool is_long = instruction.code == (BPF_JMP32 | BPF_JA);
  return at + 1 +
         static_cast<size_t>(
             int64_t{is_long ? instruction.imm : instruction.off});
}

class Follower {
 public:
  Follower(const Code& code, uint64_t most_steps)
      : code_(code),
        most_steps_(most_steps),
        entries_(code.functions.size()),
        returns_(code.functions.size()) {
    uses_.of.resize(code.functions.size());
    for (const Function& function : code.functions) {
      auto& starts = starts_.emplace_back();
      starts.insert(0);
      for (size_t i = 0; i < function.code.size(); ++i) {
        if (IsJump(function.code[i])) {
          starts.insert(JumpFrom(i, function.code[i]));
          starts.insert(i + 1);
        }
      }
    }
  }

  // Until nothing new comes of it.
  MapUses Run() {
    do {
      changed_ = false;
      for (uint32_t f = 0; f < code_.functions.size(); ++f) FollowFunction(f);
    } while (changed_ && steps_ < most_steps_);
    if (steps_ >= most_steps_) GiveUp();
    return std::move(uses_);
  }

 private:
  void FollowFunction(uint32_t f) {
    function_ = f;
    frames_.clear();
    std::copy(entries_[f].begin(), entries_[f].end(),
              frames_[0].registers.begin() + 1);
    pending_ = {0};
    while (!pending_.empty() && steps_ < most_steps_) {
      const size_t start = *pending_.begin();
      pending_.erase(pending_.begin());
      FollowBlock(start);
    }
  }

  // From one place where the code can be entered up to the next.
  void FollowBlock(size_t at) {
    const std::vector<bpf_insn>& code = code_.functions[function_].code;
    Frame frame = frames_[at];
    while (at < code.size()) {
      ++steps_;
      const bpf_insn& instruction = code[at];
      if (Is(instruction, BPF_EXIT)) {
        changed_ |= returns_[function_].Add(frame.registers[0]);
        return;
      }
      if (IsJump(instruction)) {
        Enter(JumpFrom(at, instruction), frame);
        if (BPF_OP(instruction.code) == BPF_JA) return;
      } else {
        Step(at, instruction, frame);
      }
      // The second half of an address is no instruction.
      at += instruction.code == (BPF_LD | BPF_IMM | BPF_DW) ? 2 : 1;
      if (starts_[function_].contains(at)) return Enter(at, frame);
    }
  }

  void Enter(size_t at, const Frame& frame) {
    if (at >= code_.functions[function_].code.size()) return;
    const auto [found, is_new] = frames_.try_emplace(at, frame);
    if (is_new || found->second.Add(frame)) pending_.insert(at);
    if (frames_.size() > kMostFrames) steps_ = most_steps_;
  }

  void Step(size_t at, const bpf_insn& instruction, Frame& frame) {
    if (instruction.dst_reg > kFrame || instruction.src_reg > kFrame) return;
    switch (BPF_CLASS(instruction.code)) {
      case BPF_LD:
        return LoadAddress(at, instruction, frame);
      case BPF_ALU:
      case BPF_ALU64:
        return Compute(instruction, frame);
      case BPF_LDX:
        return Load(instruction, frame);
      case BPF_ST:
      case BPF_STX:
        return Store(instruction, frame);
      default:
        if (Is(instruction, BPF_CALL)) Call(at, instruction, frame);
    }
  }

  void Set(int number, const Value& value, Frame& frame) {
    if (number < kFrame) frame.registers[number] = value;
  }
  Value Get(int number, const Frame& frame) const {
    return number < kFrame ? frame.registers[number] : Value();
  }

  void LoadAddress(size_t at, const bpf_insn& instruction, Frame& frame) {
    const Target* target = code_.functions[function_].TargetAt(at);
    Value value;
    if (target != nullptr && target->kind == Target::Kind::kObject) {
      const ObjectSet bit = BitOf(target->index);
      (code_.objects[target->index].section ? value.memory : value.maps) = bit;
    }
    Set(instruction.dst_reg, value, frame);
  }

  void Compute(const bpf_insn& instruction, Frame& frame) {
    const bool from_register = BPF_SRC(instruction.code) == BPF_X;
    const Value source =
        from_register ? Get(instruction.src_reg, frame) : Value();
    switch (BPF_OP(instruction.code)) {
      case BPF_MOV:
        return Set(instruction.dst_reg, source, frame);
      case BPF_ADD:
      case BPF_SUB: {
        Value sum = Get(instruction.dst_reg, frame);
        sum.Add(source);
        return Set(instruction.dst_reg, sum, frame);
      }
      default:
        return Set(instruction.dst_reg, {}, frame);
    }
  }

  static Value* SlotOf(int number, int16_t offset, Frame& frame) {
    if (number != kFrame || offset >= 0 || offset % 8 != 0) return nullptr;
    const int slot = -offset / 8 - 1;
    return slot < kSlots ? &frame.slots[slot] : nullptr;
  }

  void Load(const bpf_insn& instruction, Frame& frame) {
    const Value from = Get(instruction.src_reg, frame);
    uses_.of[function_].read |= from.memory;
    Value value;
    if (BPF_SIZE(instruction.code) == BPF_DW && from.empty()) {
      const Value* slot = SlotOf(instruction.src_reg, instruction.off, frame);
      value = slot != nullptr ? *slot : stored_;
      if (slot != nullptr) value.Add(stored_elsewhere_);
    }
    Set(instruction.dst_reg, value, frame);
  }

  void Store(const bpf_insn& instruction, Frame& frame) {
    MapUse& use = uses_.of[function_];
    const Value to = Get(instruction.dst_reg, frame);
    const bool from_register = BPF_CLASS(instruction.code) == BPF_STX;
    const Value value =
        from_register ? Get(instruction.src_reg, frame) : Value();
    use.written |= to.memory;
    if (from_register && BPF_MODE(instruction.code) == BPF_ATOMIC) {
      use.read |= to.memory;
      if (instruction.imm == BPF_CMPXCHG) {
        Set(0, {}, frame);
      } else if ((instruction.imm & BPF_FETCH) != 0) {
        Set(instruction.src_reg, {}, frame);
      }
      return;
    }
    if (BPF_SIZE(instruction.code) != BPF_DW) return;
    if (Value* slot = SlotOf(instruction.dst_reg, instruction.off, frame)) {
      *slot = value;
    } else {
      changed_ |= stored_elsewhere_.Add(value);
    }
    changed_ |= stored_.Add(value);
  }

  void Call(size_t at, const bpf_insn& instruction, Frame& frame) {
    const Target* target = code_.functions[function_].TargetAt(at);
    Value result;
    if (target != nullptr && target->kind == Target::Kind::kFunction) {
      CallFunction(target->index, frame);
      result = returns_[target->index];
    } else if (instruction.src_reg == 0 && target == nullptr) {
      result = CallHelper(static_cast<uint32_t>(instruction.imm), frame);
    } else {
      CallKernel(frame);
    }
    for (int i = 1; i <= kArguments; ++i) frame.registers[i] = {};
    frame.registers[0] = result;
  }

  void CallFunction(uint32_t callee, const Frame& frame) {
    for (int i = 0; i < kArguments; ++i) {
      changed_ |= entries_[callee][i].Add(frame.registers[i + 1]);
    }
  }

  Value CallHelper(uint32_t helper, const Frame& frame) {
    const HelperEffect effect = EffectOf(helper);
    MapUse& use = uses_.of[function_];
    // The map is the first argument, or stands behind a context.
    const int map = frame.registers[1].maps != 0 ? 1 : 2;
    const ObjectSet maps = frame.registers[map].maps;
    ObjectSet memory = 0;
    for (int i = 1; i <= kArguments; ++i) {
      if (i != map || maps == 0) memory |= frame.registers[i].memory;
    }
    if (effect.reads) use.read |= maps;
    if (effect.writes) use.written |= maps;
    using enum HelperEffect::Memory;
    if (effect.memory == kRead || effect.memory == kWritten) use.read |= memory;
    if (effect.memory == kFilled || effect.memory == kWritten) {
      use.written |= memory;
    }
    if (effect.calls) CallBack({maps, effect.shows ? memory | maps : memory});
    if (!effect.finds) return {};
    use.looked_up |= maps;
    // The entry of a map of maps is a map; which one, nobody knows.
    return {maps, maps};
  }

  // Which function is called, and as what it gets which argument, does not
  // matter then: any of those whose address is taken here, any.
  void CallBack(const Value& arguments) {
    Value all = arguments;
    all.Add(stored_);
    for (const auto& [at, target] : code_.functions[function_].targets) {
      if (target.kind != Target::Kind::kFunction) continue;
      for (Value& entry : entries_[target.index]) changed_ |= entry.Add(all);
    }
  }

  void CallKernel(const Frame& frame) {
    MapUse& use = uses_.of[function_];
    for (int i = 1; i <= kArguments; ++i) {
      const Value& value = frame.registers[i];
      use.read |= value.maps | value.memory;
      use.written |= value.maps | value.memory;
    }
  }

  void GiveUp() {
    uses_.followed = false;
    for (size_t f = 0; f < code_.functions.size(); ++f) {
      for (const auto& [at, target] : code_.functions[f].targets) {
        if (target.kind != Target::Kind::kObject) continue;
        const ObjectSet bit = BitOf(target.index);
        uses_.of[f] = {uses_.of[f].looked_up | bit, uses_.of[f].read | bit,
                       uses_.of[f].written | bit};
      }
    }
  }

  static constexpr int kArguments = 5;

  const Code& code_;
  const uint64_t most_steps_;
  MapUses uses_;
  std::vector<std::set<size_t>> starts_;  // of blocks, by function
  std::vector<std::array<Value, kArguments>> entries_;
  std::vector<Value> returns_;
  Value stored_;  // anywhere in memory
  Value
      stored_elsewhere_;  // where it may be a slot that is loaded by its place
  bool changed_ = false;
  uint64_t steps_ = 0;
  // Of the function that is being followed.
  uint32_t function_ = 0;
  std::map<size_t, Frame> frames_;  // at the starts of blocks
  std::set<size_t> pending_;
};

}  // namespace

ObjectSet BitOf(uint32_t object) {
  return ObjectSet{1} << std::min(object, kLastObject);
}

MapUses FollowMaps(const Code& code, uint64_t most_steps) {
  return Follower(code, most_steps).Run();
}

}  // namespace bpfgrant::daemon

#include "daemon/loader/inspection/line_diff.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace bpfgrant::daemon {
namespace {

using Lines = std::vector<std::string_view>;

// Entries of the table of what is left in common.
constexpr size_t kMostEntries = size_t{4} << 20;

Lines Split(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

class Differ {
 public:
  Differ(Lines before, Lines after)
      : before_(std::move(before)),
        after_(std::move(after)),
        width_(after_.size() + 1) {}

  std::string Run() {
    if ((before_.size() + 1) * width_ <= kMostEntries) Compare();
    size_t i = 0, j = 0;
    while (i < before_.size() || j < after_.size()) {
      if (!common_.empty() && i < before_.size() && j < after_.size() &&
          before_[i] == after_[j]) {
        Tell(' ', before_[i++]);
        ++j;
      } else if (i < before_.size() && (j == after_.size() || common_.empty() ||
                                        At(i + 1, j) >= At(i, j + 1))) {
        Tell('-', before_[i++]);
      } else {
        Tell('+', after_[j++]);
      }
    }
    return std::move(text_);
  }

 private:
  uint32_t& At(size_t i, size_t j) { return common_[i * width_ + j]; }

  // How many lines the ends of both, from (i, j) on, have in common.
  void Compare() {
    common_.resize((before_.size() + 1) * width_);
    for (size_t i = before_.size(); i-- > 0;) {
      for (size_t j = after_.size(); j-- > 0;) {
        At(i, j) = before_[i] == after_[j]
                       ? At(i + 1, j + 1) + 1
                       : std::max(At(i + 1, j), At(i, j + 1));
      }
    }
  }

  void Tell(char sign, std::string_view line) {
    text_ += sign;
    text_ += line;
    text_ += '\n';
  }

  const Lines before_, after_;
  const size_t width_;
  std::vector<uint32_t> common_;  // empty: too many to compare
  std::string text_;
};

}  // namespace

std::string DiffLines(std::string_view before, std::string_view after) {
  if (before == after) return "";
  return Differ(Split(before), Split(after)).Run();
}

}  // namespace bpfgrant::daemon

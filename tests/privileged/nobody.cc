#include "tests/privileged/nobody.h"

#include <csignal>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

constexpr std::chrono::milliseconds kPatience{30'000};

}  // namespace

uint32_t Acquired::program() const {
  const auto found = ids.find("program");
  return found == ids.end() ? 0 : found->second;
}

KernelObjects Acquired::objects() const {
  KernelObjects objects;
  for (const auto& [name, id] : ids) {
    (name == "program" ? objects.programs : objects.maps).insert(id);
  }
  return objects;
}

UnprivilegedOptions Nobody::Options() {
  UnprivilegedOptions options;
  options.timeout = std::chrono::minutes(5);
  return options;
}

std::string Nobody::Path() { return NOBODY_PATH; }

Nobody::Nobody(const UnprivilegedOptions& options) : Nobody(Path(), options) {}

Nobody::Nobody(const std::string& binary) : Nobody(binary, Options()) {}

Nobody::Nobody(const std::string& binary, const UnprivilegedOptions& options) {
  auto process = UnprivilegedProcess::Spawn(binary, {}, options);
  EXPECT_TRUE(process.ok()) << process.status();
  if (process.ok()) process_.emplace(*std::move(process));
}

void Nobody::Tell(const std::string& command) {
  ASSERT_TRUE(process_.has_value());
  const absl::Status status = process_->WriteLine(command);
  EXPECT_TRUE(status.ok()) << command << ": " << status;
}

std::string Nobody::Answer(std::chrono::milliseconds timeout) {
  if (!process_.has_value()) return "";
  const auto line = process_->WaitForLine("", timeout);
  EXPECT_TRUE(line.ok()) << line.status();
  return line.ok() ? *line : "";
}

std::string Nobody::Listen(std::chrono::milliseconds timeout) {
  if (!process_.has_value()) return "";
  const auto line = process_->WaitForLine("", timeout);
  return line.ok() ? *line : "";
}

std::string Nobody::Ask(const std::string& command) {
  Tell(command);
  return Answer(kPatience);
}

std::vector<std::string> Nobody::Do(const std::string& command) {
  std::vector<std::string> words = absl::StrSplit(Ask(command), ' ');
  EXPECT_EQ(words.front(), "ok")
      << command << ": " << (words.size() > 1 ? words[1] : "");
  words.erase(words.begin());
  return words;
}

std::string Nobody::Word(const std::string& command, size_t i) {
  const std::vector<std::string> words = Do(command);
  return i < words.size() ? words[i] : "";
}

uint64_t Nobody::Number(const std::string& command, size_t i) {
  const std::string word = Word(command, i);
  uint64_t number = 0;
  EXPECT_TRUE(absl::SimpleAtoi(word, &number)) << command << ": " << word;
  return number;
}

Acquired Nobody::Acquire(const std::string& how) {
  const std::vector<std::string> words = Do("acquire " + how);
  Acquired acquired;
  EXPECT_GE(words.size(), 3u) << how;
  if (words.size() < 3) return acquired;
  acquired.index = words[0];
  EXPECT_TRUE(absl::SimpleAtoi(words[1], &acquired.grant));
  acquired.delivery = words[2];
  for (size_t i = 3; i < words.size(); ++i) {
    const std::pair<std::string, std::string> named =
        absl::StrSplit(words[i], absl::MaxSplits('=', 1));
    uint32_t id = 0;
    EXPECT_TRUE(absl::SimpleAtoi(named.second, &id)) << words[i];
    acquired.ids[named.first] = id;
  }
  return acquired;
}

void Nobody::KillAndReap() {
  process_->Kill(SIGKILL);
  process_->Wait();
}

}  // namespace bpfgrant::test

// Runs a fuzz target without a fuzzer: over every file of the folders given,
// and over changes of each that are the same at every run.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr int kChangesOfEach = 2000;

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()),
                         input.size());
}

// Cuts it, or overwrites some of it with what makes readers stumble, or with
// other parts of it.
std::string Change(std::string input, std::mt19937& random) {
  const auto below = [&](size_t limit) { return random() % limit; };
  if (below(8) == 0) input.resize(below(input.size() + 1));
  for (size_t times = 1 + below(4); times > 0 && !input.empty(); --times) {
    const size_t at = below(input.size());
    const size_t length = std::min<size_t>(1 + below(8), input.size() - at);
    switch (below(4)) {
      case 0:
        input[at] = static_cast<char>(random());
        break;
      case 1:
        std::fill_n(input.begin() + at, length, '\xff');
        break;
      case 2:
        std::fill_n(input.begin() + at, length, '\0');
        break;
      default:
        input.replace(at, length, input, below(input.size()), length);
    }
  }
  return input;
}

void Replay(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string input{std::istreambuf_iterator<char>(file), {}};
  Run(input);
  std::mt19937 random(1);
  for (int i = 0; i < kChangesOfEach; ++i) Run(Change(input, random));
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
  }
  std::ranges::sort(files);
  for (const auto& file : files) Replay(file);
  std::printf("%zu files, %d changes of each\n", files.size(), kChangesOfEach);
  return files.empty() ? 1 : 0;
}

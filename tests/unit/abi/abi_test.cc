// The ABI of libbpfgrant.so.1 beside what was released.
//
// What fails here breaks programs that are installed. To add a function: a node
// behind the last one in client/libbpfgrant.map, its line in
// libbpfgrant.symbols, its page. To add to a structure that has a `size`:
// behind its last field, 0 for what it was before, and its lines in
// libbpfgrant.layout, where the structure's own size changes; print_layout.c
// prints them. No other line of either file ever changes.

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace bpfgrant::test {
namespace {

using ::testing::ElementsAreArray;
using Lines = std::vector<std::string>;

std::string Read(const std::string& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

Lines LinesOf(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

Lines LinesOfGolden(const std::string& name) {
  return LinesOf(Read(absl::StrCat(GOLDEN_FOLDER, "/", name)));
}

std::string OutputOf(const std::string& command) {
  std::string output;
  FILE* pipe = popen(command.c_str(), "re");
  EXPECT_NE(pipe, nullptr);
  std::array<char, 4096> part;
  size_t size;
  while ((size = fread(part.data(), 1, part.size(), pipe)) > 0) {
    output.append(part.data(), size);
  }
  EXPECT_EQ(pclose(pipe), 0) << command;
  return output;
}

// "NAME@@VERSION" of functions, "VERSION" of nodes, and anything else that is
// exported, as nm shows it.
Lines Exported() {
  Lines exported;
  for (const std::string& line :
       LinesOf(OutputOf(NM_PATH " -D --defined-only " LIBRARY_PATH))) {
    const Lines words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    EXPECT_EQ(words.size(), 3u) << line;
    exported.push_back(words.back());
  }
  std::sort(exported.begin(), exported.end());
  return exported;
}

std::set<std::string> Functions() {
  std::set<std::string> functions;
  for (const std::string& symbol : Exported()) {
    const size_t at = symbol.find('@');
    if (at != std::string::npos) functions.insert(symbol.substr(0, at));
  }
  return functions;
}

// The header without its comments.
std::string Header() {
  return std::regex_replace(Read(HEADER_PATH),
                            std::regex(R"(/\*([^*]|\*[^/])*\*/)"), "");
}

std::set<std::string> FoundIn(const std::string& text, const char* expression) {
  const std::regex pattern(expression, std::regex::multiline);
  std::set<std::string> found;
  for (std::sregex_iterator match(text.begin(), text.end(), pattern), end;
       match != end; ++match) {
    found.insert((*match)[1]);
  }
  return found;
}

TEST(AbiTest, ExportsWhatWasReleasedAndNothingElse) {
  EXPECT_THAT(Exported(),
              ElementsAreArray(LinesOfGolden("libbpfgrant.symbols")));
}

TEST(AbiTest, ExportsWhatTheHeaderDeclares) {
  EXPECT_EQ(Functions(), FoundIn(Header(), R"(\b(bpfgrant_\w+)\()"));
}

TEST(AbiTest, LaysOutWhatWasReleasedAsItWas) {
  EXPECT_THAT(LinesOf(OutputOf(PRINT_LAYOUT_PATH)),
              ElementsAreArray(LinesOfGolden("libbpfgrant.layout")));
}

// What print_layout.c leaves out would change without notice.
TEST(AbiTest, LayoutHasAllThatTheHeaderDefines) {
  const std::string layout = Read(GOLDEN_FOLDER "/libbpfgrant.layout");
  const std::string header = Header();
  const auto structures = FoundIn(header, R"(^struct (bpfgrant_\w+) \{)");
  EXPECT_GE(structures.size(), 10u);
  for (const std::string& structure : structures) {
    EXPECT_NE(layout.find(absl::StrCat("struct ", structure, ": ")),
              std::string::npos)
        << structure;
    const size_t begin = header.find(absl::StrCat("struct ", structure, " {"));
    const std::string body =
        header.substr(begin, header.find("\n};", begin) - begin);
    for (const std::string& field :
         FoundIn(body, R"(^  \w[^;{}]*\b(\w+)(\[\d+\])?;)")) {
      EXPECT_NE(
          layout.find(absl::StrCat("struct ", structure, ": ", field, " ")),
          std::string::npos)
          << structure << "." << field;
    }
  }
  const auto values = FoundIn(header, R"(\b(BPFGRANT_\w+) =)");
  EXPECT_GE(values.size(), 40u);
  for (const std::string& value : values) {
    EXPECT_NE(layout.find(absl::StrCat("\n", value, ": ")), std::string::npos)
        << value;
  }
}

std::string PageOf(const std::string& name) {
  return absl::StrCat(MAN_FOLDER, "/man3/", name, ".3");
}

// A page, or a line that leads to one; and that page names it.
TEST(ManualTest, EachFunctionHasAPage) {
  for (const std::string& function : Functions()) {
    ASSERT_TRUE(std::filesystem::exists(PageOf(function))) << function;
    std::string text = Read(PageOf(function));
    if (text.rfind(".so man3/", 0) == 0) {
      text = Read(
          absl::StrCat(MAN_FOLDER, "/", text.substr(4, text.find('\n') - 4)));
    }
    const std::string name = absl::StrCat("\n.Nm ", function);
    EXPECT_TRUE(text.find(name + "\n") != std::string::npos ||
                text.find(name + " ,\n") != std::string::npos)
        << "NAME of " << function;
    EXPECT_NE(text.find(absl::StrCat("\n.Fo ", function, "\n")),
              std::string::npos)
        << "SYNOPSIS of " << function;
  }
}

TEST(ManualTest, PagesAreWellFormed) {
  for (const auto& file :
       std::filesystem::recursive_directory_iterator(MAN_FOLDER)) {
    const std::string page = file.path();
    if (!file.is_regular_file() || Read(page).rfind(".so ", 0) == 0) continue;
    EXPECT_EQ(OutputOf("mandoc -Tlint -W warning " + page), "");
  }
}

TEST(ManualTest, NoPageIsAboutWhatThereIsNot) {
  const std::set<std::string> functions = Functions();
  for (const auto& page :
       std::filesystem::directory_iterator(MAN_FOLDER "/man3")) {
    const std::string text = Read(page.path());
    for (const std::string& name : FoundIn(text, R"(^\.Fo (\w+)$)")) {
      EXPECT_EQ(functions.count(name), 1u) << page.path() << ": " << name;
    }
  }
}

}  // namespace
}  // namespace bpfgrant::test

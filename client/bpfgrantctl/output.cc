#include "client/bpfgrantctl/output.h"

#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace bpfgrant::ctl {
namespace {

bool colored = false;

// The length of the UTF-8 sequence at the start of `text`, and its character;
// 0 if there is none. Overlong forms and surrogates are none.
size_t DecodeCharacter(std::string_view text, uint32_t& character) {
  const auto first = static_cast<unsigned char>(text[0]);
  character = first;
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  character = first & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0) != 0x80) return 0;
    character = character << 6 | (byte & 0x3f);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = character >= 0xd800 && character < 0xe000;
  if (character < kSmallest[length] || character > 0x10ffff || surrogate) {
    return 0;
  }
  return length;
}

bool IsHarmless(uint32_t character) {
  const auto within = [character](uint32_t first, uint32_t last) {
    return character >= first && character <= last;
  };
  return !within(0, 0x1f) && !within(0x7f, 0x9f) &&
         character != 0x61c &&       // Arabic letter mark
         !within(0x200b, 0x200f) &&  // of no width, and direction marks
         !within(0x2028, 0x202e) &&  // line separators, direction overrides
         !within(0x2060, 0x206f) &&  // likewise
         character != 0xfeff &&      // byte order mark
         !within(0xfff9, 0xfffb) &&  // annotations
         !within(0xe0000, 0xe0fff);  // tags
}

std::string EscapeBut(std::string_view text, std::string_view kept) {
  std::string escaped;
  while (!text.empty()) {
    uint32_t character = 0;
    const size_t length = DecodeCharacter(text, character);
    const size_t taken = std::max<size_t>(length, 1);
    const std::string_view bytes = text.substr(0, taken);
    if (length > 0 && (IsHarmless(character) ||
                       kept.find(text[0]) != std::string_view::npos)) {
      escaped.append(bytes);
    } else {
      for (const char byte : bytes) {
        absl::StrAppendFormat(&escaped, "\\x%02x",
                              static_cast<unsigned char>(byte));
      }
    }
    text.remove_prefix(taken);
  }
  return escaped;
}

// Characters, which is columns for what names and paths are made of.
size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(),
                    [](char byte) { return (byte & 0xc0) != 0x80; }));
}

std::string Padding(const std::string& text, size_t width) {
  const size_t used = Width(text);
  return std::string(width > used ? width - used : 0, ' ');
}

}  // namespace

std::string Escape(std::string_view text) { return EscapeBut(text, ""); }

std::string EscapeLines(std::string_view text) {
  return EscapeBut(text, "\n\t");
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    uint32_t character = 0;
    const size_t length = DecodeCharacter(text, character);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

void ChooseColor(const std::string& when) {
  const char* none = std::getenv("NO_COLOR");
  colored = when == "always" || (when == "auto" && isatty(STDOUT_FILENO) != 0 &&
                                 (none == nullptr || *none == '\0'));
}

std::string Paint(Style style, const std::string& text) {
  constexpr const char* kCodes[] = {"", "1", "32", "33", "1;31"};
  if (!colored || style == Style::kPlain) return text;
  return absl::StrCat("\033[", kCodes[static_cast<size_t>(style)], "m", text,
                      "\033[0m");
}

Table::Table(const std::vector<std::string>& headings) {
  std::vector<Cell>& row = rows_.emplace_back();
  for (const std::string& heading : headings) {
    row.emplace_back(heading, Style::kHeading);
  }
}

void Table::Add(std::vector<Cell> row) {
  for (Cell& cell : row) {
    cell.text = cell.text.empty() ? "-" : Escape(cell.text);
  }
  rows_.push_back(std::move(row));
}

void Table::Print() const {
  std::vector<size_t> widths(rows_.front().size());
  for (const std::vector<Cell>& row : rows_) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], Width(row[i].text));
    }
  }
  for (const std::vector<Cell>& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, Paint(row[i].style, row[i].text));
      if (i + 1 < row.size()) {
        absl::StrAppend(&line, Padding(row[i].text, widths[i]), "  ");
      }
    }
    std::printf("%s\n", line.c_str());
  }
}

void Sheet::Add(std::string name, Cell value) {
  value.text = value.text.empty() ? "-" : Escape(value.text);
  lines_.emplace_back(std::move(name), std::move(value));
}

void Sheet::Print() const {
  size_t width = 0;
  for (const auto& [name, value] : lines_) {
    width = std::max(width, Width(name));
  }
  for (const auto& [name, value] : lines_) {
    // A line without a name goes on with the one before.
    const std::string label = name.empty() ? "" : absl::StrCat(name, ":");
    std::printf("%s%s  %s\n", Paint(Style::kHeading, label).c_str(),
                Padding(label, width + 1).c_str(),
                Paint(value.style, value.text).c_str());
  }
}

Cell YesNo(bool yes) {
  return yes ? Cell("yes", Style::kGood) : Cell("no", Style::kBad);
}

std::string ShortDigest(const std::string& digest) {
  return digest.substr(0, 12);
}

std::string UserName(uint32_t uid) {
  const passwd* found = getpwuid(uid);
  return found == nullptr ? "" : found->pw_name;
}

std::string LocalTime(int64_t unix_ms) {
  if (unix_ms == 0) return "";
  const time_t seconds = unix_ms / 1000;
  tm local{};
  char text[64];
  if (localtime_r(&seconds, &local) == nullptr ||
      strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &local) == 0) {
    return absl::StrCat(unix_ms, " ms");
  }
  return text;
}

std::string Age(int64_t unix_ms) {
  if (unix_ms == 0) return "";
  const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now().time_since_epoch());
  // A clock that was set back makes nothing younger than new.
  const int64_t age = std::max<int64_t>((now.count() - unix_ms) / 1000, 0);
  if (age < 60) return absl::StrCat(age, " s");
  if (age < 3600) return absl::StrCat(age / 60, " min ", age % 60, " s");
  if (age < 86400) {
    return absl::StrCat(age / 3600, " h ", age / 60 % 60, " min");
  }
  return absl::StrCat(age / 86400, " d ", age / 3600 % 24, " h");
}

std::string Bytes(uint64_t bytes) {
  if (bytes < 1024) return absl::StrCat(bytes, " bytes");
  if (bytes < 1024 * 1024) return absl::StrFormat("%.1f KiB", bytes / 1024.0);
  return absl::StrFormat("%.1f MiB", bytes / (1024.0 * 1024.0));
}

std::string Count(uint64_t count, std::string_view noun) {
  return absl::StrCat(count, " ", std::string(noun), count == 1 ? "" : "s");
}

}  // namespace bpfgrant::ctl

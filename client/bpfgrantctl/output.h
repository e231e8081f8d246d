// How bpfgrantctl writes for people: escaped, aligned, never cut.
//
// Whatever the daemon sends may hold bytes that a client chose (a systemd unit,
// a program name asked for): nothing is printed that did not go through Escape.

#ifndef CLIENT_BPFGRANTCTL_OUTPUT_H_
#define CLIENT_BPFGRANTCTL_OUTPUT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bpfgrant::ctl {

// One line that a terminal shows as it is: control characters (C0, DEL, C1),
// line separators, the marks that turn or hide the direction of text, and what
// is not UTF-8 become \xNN, byte by byte. Backslashes stay, so that a unit's
// name can be pasted.
std::string Escape(std::string_view text);

// The same for text of several lines: newlines and tabs stay.
std::string EscapeLines(std::string_view text);

bool IsUtf8(std::string_view text);

enum class Style { kPlain, kHeading, kGood, kDoubtful, kBad };

// --color: "auto" colours a terminal only, and none if NO_COLOR is set.
void ChooseColor(const std::string& when);

// `text` in that style; as it is if there is no colour.
std::string Paint(Style style, const std::string& text);

struct Cell {
  Cell(std::string text, Style style = Style::kPlain)  // NOLINT: a literal is
      : text(std::move(text)), style(style) {}         // a cell
  Cell(const char* text) : text(text) {}               // NOLINT
  std::string text;
  Style style = Style::kPlain;
};

// Columns as wide as their widest cell, two blanks between. An empty cell shows
// "-", so that a program can split at blanks.
class Table {
 public:
  explicit Table(const std::vector<std::string>& headings);
  void Add(std::vector<Cell> row);
  void Print() const;

 private:
  std::vector<std::vector<Cell>> rows_;
};

// "name:  value" lines, the values below each other.
class Sheet {
 public:
  void Add(std::string name, Cell value);
  void Print() const;

 private:
  std::vector<std::pair<std::string, Cell>> lines_;
};

Cell YesNo(bool yes);
std::string ShortDigest(const std::string& digest);  // 12 digits
std::string UserName(uint32_t uid);                  // "" if it has none
std::string LocalTime(int64_t unix_ms);  // "2025-11-21 06:24:11"; "" for 0
std::string Age(int64_t unix_ms);        // "3 min 12 s"; "" for 0
std::string Bytes(uint64_t bytes);       // "1.5 MiB"

// A count and its noun: "1 grant", "2 grants".
std::string Count(uint64_t count, std::string_view noun);

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_OUTPUT_H_

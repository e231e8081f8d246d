// A terminal that is drawn anew again and again, by the escape sequences that
// all terminals of today know.

#ifndef CLIENT_BPFGRANTCTL_SCREEN_H_
#define CLIENT_BPFGRANTCTL_SCREEN_H_

#include <termios.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

namespace bpfgrant::ctl {

class Screen {
 public:
  // Whether standard output and input are a terminal.
  static bool IsThere();

  // Takes the whole terminal, and gives it back as it was at the end, also when
  // SIGINT, SIGTERM or SIGHUP ends the waiting.
  Screen();
  ~Screen();
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;

  size_t rows() const;
  size_t columns() const;
  // Shows `lines`, which are plain text, as far as there is room.
  void Draw(const std::vector<std::string>& lines);
  // False: q was pressed, or a signal came. Earlier if the size has changed.
  bool Wait(std::chrono::milliseconds time);

 private:
  termios before_{};
};

}  // namespace bpfgrant::ctl

#endif  // CLIENT_BPFGRANTCTL_SCREEN_H_

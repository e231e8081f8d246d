#include "client/bpfgrantctl/screen.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>

namespace bpfgrant::ctl {
namespace {

constexpr char kEnter[] = "\033[?1049h\033[?25l";
constexpr char kLeave[] = "\033[?25h\033[?1049l";

volatile std::sig_atomic_t ended = 0;

void OnSignal(int number) {
  if (number != SIGWINCH) ended = 1;
}

winsize SizeOfTerminal() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 ||
      size.ws_col == 0) {
    size.ws_row = 24;
    size.ws_col = 80;
  }
  return size;
}

}  // namespace

bool Screen::IsThere() {
  return isatty(STDOUT_FILENO) != 0 && isatty(STDIN_FILENO) != 0;
}

Screen::Screen() {
  tcgetattr(STDIN_FILENO, &before_);
  termios raw = before_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  struct sigaction action {};
  action.sa_handler = OnSignal;
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) {
    sigaction(number, &action, nullptr);
  }
  std::fputs(kEnter, stdout);
  std::fflush(stdout);
}

Screen::~Screen() {
  std::fputs(kLeave, stdout);
  std::fflush(stdout);
  tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

size_t Screen::rows() const { return SizeOfTerminal().ws_row; }
size_t Screen::columns() const { return SizeOfTerminal().ws_col; }

void Screen::Draw(const std::vector<std::string>& lines) {
  const size_t most = rows(), width = columns();
  std::fputs("\033[H", stdout);
  for (size_t i = 0; i < std::min(lines.size(), most); ++i) {
    // The rest of the line is cleared; the last one does not scroll.
    std::printf("%s%s\033[K", i == 0 ? "" : "\r\n",
                lines[i].substr(0, width).c_str());
  }
  std::fputs("\033[J", stdout);
  std::fflush(stdout);
}

bool Screen::Wait(std::chrono::milliseconds time) {
  pollfd input{STDIN_FILENO, POLLIN, 0};
  const int ready = poll(&input, 1, static_cast<int>(time.count()));
  if (ended != 0) return false;
  if (ready <= 0) return true;
  char key = 0;
  if (read(STDIN_FILENO, &key, 1) <= 0) return false;
  return key != 'q' && key != 'Q';
}

}  // namespace bpfgrant::ctl

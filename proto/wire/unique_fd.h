// UniqueFd: the one owner of a file descriptor.
//
// Adopting is explicit, copying is impossible, and there is no conversion to
// int: whoever wants the number says get(), whoever takes the fd says
// std::move.

#ifndef PROTO_WIRE_UNIQUE_FD_H_
#define PROTO_WIRE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace bpfgrant {

class UniqueFd {
 public:
  UniqueFd() = default;
  // Takes over `fd`; -1 makes an empty one.
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(other.release());
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  // The number; -1 if empty. Remains owned.
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

  // Gives ownership to the caller.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

  // Closes what is owned and takes over `fd`. Leaves errno alone: a destructor
  // must not change what the code around it is about to report.
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

}  // namespace bpfgrant

#endif  // PROTO_WIRE_UNIQUE_FD_H_

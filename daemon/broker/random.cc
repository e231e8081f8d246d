#include "daemon/broker/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>

namespace bpfgrant::broker {
namespace {

void Fill(void* data, size_t size) {
  auto* bytes = static_cast<char*>(data);
  while (size > 0) {
    const ssize_t got = getrandom(bytes, size, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      // No entropy, no tokens: there is nothing safe left to do.
      std::abort();
    }
    bytes += got;
    size -= static_cast<size_t>(got);
  }
}

}  // namespace

std::string RandomBytes(size_t size) {
  std::string bytes(size, '\0');
  Fill(bytes.data(), size);
  return bytes;
}

uint64_t RandomNonzero() {
  uint64_t number = 0;
  while (number == 0) Fill(&number, sizeof(number));
  return number;
}

}  // namespace bpfgrant::broker

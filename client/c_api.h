// What the parts of the C library share: errors as numbers and structures,
// structures that can grow, and what is behind its opaque types. It must not
// decide anything: that is the C++ library's.

#ifndef CLIENT_C_API_H_
#define CLIENT_C_API_H_

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bpfgrant/bpfgrant.h"
#include "client/bpfgrant/connection.h"
#include "client/bpfgrant/grant.h"
#include "client/bpfgrant/mapped_array.h"
#include "client/bpfgrant/ring_buffer.h"
#include "client/bpfgrant/swappable_map.h"
#include "client/bpfgrant/user_ring_buffer.h"

struct bpfgrant_connection {
  bpfgrant::Connection connection;
};

struct bpfgrant_grant {
  explicit bpfgrant_grant(bpfgrant::Grant grant)
      : own(std::move(grant)), grant(&*own) {}
  // Of a loop, which keeps it.
  explicit bpfgrant_grant(bpfgrant::Grant* of_loop) : grant(of_loop) {}

  std::optional<bpfgrant::Grant> own;
  bpfgrant::Grant* grant;
};

struct bpfgrant_description {
  bpfgrant::v1::DescribeReply reply;
  std::string variant;
};

struct bpfgrant_ring_buffer {
  bpfgrant::RingBuffer ring_buffer;
};

struct bpfgrant_user_ring_buffer {
  bpfgrant::UserRingBuffer ring_buffer;
};

struct bpfgrant_array {
  bpfgrant::MappedArray array;
  uint32_t value_size;
};

struct bpfgrant_swappable_map {
  bpfgrant::SwappableMap map;
};

namespace bpfgrant {

// Fills in `error`, if there is one, and returns the number for `status`, which
// is not OK.
int Fail(const absl::Status& status, bpfgrant_error* error);
// The same for an argument that cannot be.
int FailInvalid(const char* message, bpfgrant_error* error);
// 0 for OK.
int ResultOf(const absl::Status& status, bpfgrant_error* error);

// Gives what a call brought to a caller in C.
template <typename Wrapper, typename Value>
int Give(absl::StatusOr<Value> value, Wrapper** to, bpfgrant_error* error) {
  *to = nullptr;
  if (!value.ok()) return Fail(value.status(), error);
  *to = new Wrapper{*std::move(value)};
  return 0;
}

// Reads a structure of the caller's, which may be of an older or a newer
// release: what it lacks is as in `to`. 0, -EINVAL or -E2BIG.
template <typename Structure>
int CopyIn(const Structure* from, size_t first_size, Structure& to) {
  if (from->size < first_size) return -EINVAL;
  if (from->size > sizeof(Structure)) {
    const char* const rest = reinterpret_cast<const char*>(from);
    if (std::any_of(rest + sizeof(Structure), rest + from->size,
                    [](char byte) { return byte != 0; })) {
      return -E2BIG;
    }
  }
  std::memcpy(&to, from, std::min<size_t>(from->size, sizeof(Structure)));
  return 0;
}

// Writes as much of `from` as the caller's structure has room for; what that
// has beyond is left alone. 0 or -EINVAL.
template <typename Structure>
int CopyOut(Structure from, size_t first_size, Structure* to) {
  if (to->size < first_size) return -EINVAL;
  from.size = to->size;
  std::memcpy(to, &from, std::min<size_t>(to->size, sizeof(Structure)));
  return 0;
}

// `text` into a field, cut off at the start of a character, with a 0 behind.
void CopyText(const std::string& text, char* to, size_t size);

bpfgrant_handle HandleInC(const v1::Handle& handle, int fd);

// What a structure reached to, with `last`, when it was released first.
#define BPFGRANT_FIRST_BYTES(structure, last) \
  (offsetof(structure, last) + sizeof(structure::last))
inline constexpr size_t kFirstHandleBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_handle, swappable);

inline std::string TextOf(const char* text) {
  return text == nullptr ? std::string() : std::string(text);
}

}  // namespace bpfgrant

#endif  // CLIENT_C_API_H_

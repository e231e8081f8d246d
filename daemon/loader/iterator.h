// The kernel's BPF iterators: attached once, read to their end as often as
// wanted.

#ifndef DAEMON_LOADER_ITERATOR_H_
#define DAEMON_LOADER_ITERATOR_H_

#include <bpf/bpf.h>
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "daemon/loader/object.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// The link of the iterator `name` of a loaded object; it keeps the program.
// kUnimplemented, with what libbpf or the kernel said.
absl::StatusOr<UniqueFd> AttachIterator(const bpf_object* object,
                                        const char* name, const LibbpfLog& log);

// Everything that the iterator behind `link` writes, which is whole records.
// kInternal with the errno of the call that failed.
template <typename Record>
absl::StatusOr<std::vector<Record>> ReadIterator(int link) {
  static_assert(std::is_trivially_copyable_v<Record>);
  const UniqueFd iterator(bpf_iter_create(link));
  if (!iterator.valid()) {
    return absl::InternalError(
        absl::StrCat("beginning a census: ", std::strerror(errno)));
  }
  std::vector<Record> records;
  // A read may end within a record.
  std::array<char, 16 * 1024> buffer;
  size_t begun = 0;
  for (;;) {
    const ssize_t length =
        read(iterator.get(), buffer.data() + begun, buffer.size() - begun);
    if (length < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (length < 0) {
      return absl::InternalError(
          absl::StrCat("taking a census: ", std::strerror(errno)));
    }
    if (length == 0) return records;
    const size_t bytes = begun + static_cast<size_t>(length);
    const size_t whole = bytes / sizeof(Record);
    const size_t before = records.size();
    records.resize(before + whole);
    std::memcpy(records.data() + before, buffer.data(), whole * sizeof(Record));
    begun = bytes - whole * sizeof(Record);
    std::memmove(buffer.data(), buffer.data() + whole * sizeof(Record), begun);
  }
}

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_ITERATOR_H_

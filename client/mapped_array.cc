#include "client/bpfgrant/mapped_array.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant {
namespace {

// Elements stand 8 bytes apart, or a multiple of it (array_map_alloc,
// kernel/bpf/arraymap.c).
size_t Stride(uint32_t value_size) {
  return (size_t{value_size} + 7) & ~size_t{7};
}

size_t Bytes(uint32_t value_size, uint32_t entries) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (Stride(value_size) * entries + page - 1) / page * page;
}

}  // namespace

absl::StatusOr<MappedArray> MappedArray::Map(const Grant::Handle& handle) {
  const v1::Handle& array = handle.description;
  if (array.kind() != v1::HANDLE_KIND_ARRAY || !array.mappable() ||
      array.rights() != v1::RIGHTS_READ_WRITE) {
    return absl::InvalidArgumentError(
        absl::StrCat("handle '", array.name(), "' cannot be mapped"));
  }
  void* memory = mmap(nullptr, Bytes(array.value_size(), array.max_entries()),
                      PROT_READ | PROT_WRITE, MAP_SHARED, handle.fd.get(), 0);
  if (memory == MAP_FAILED) {
    return absl::InternalError(
        absl::StrCat("mmap of an array: ", std::strerror(errno)));
  }
  return MappedArray(memory, array.value_size(), array.max_entries());
}

MappedArray::MappedArray(void* memory, uint32_t value_size, uint32_t entries)
    : memory_(memory), value_size_(value_size), entries_(entries) {}

MappedArray::MappedArray(MappedArray&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)),
      value_size_(other.value_size_),
      entries_(other.entries_) {}

MappedArray::~MappedArray() {
  if (memory_ != nullptr) munmap(memory_, Bytes(value_size_, entries_));
}

void* MappedArray::At(uint32_t index) const {
  if (index >= entries_) return nullptr;
  return static_cast<char*>(memory_) + Stride(value_size_) * index;
}

}  // namespace bpfgrant

// An array map in the caller's memory: reads and writes without system calls.

#ifndef BPFGRANT_MAPPED_ARRAY_H_
#define BPFGRANT_MAPPED_ARRAY_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "client/bpfgrant/grant.h"

namespace bpfgrant {

class MappedArray {
 public:
  // Maps the array of `handle`, whose fd is not needed afterwards.
  // kInvalidArgument: the kernel does not map it; only an ARRAY handle that is
  // `mappable`, with the rights READ_WRITE, can be.
  static absl::StatusOr<MappedArray> Map(const Grant::Handle& handle);

  MappedArray(MappedArray&& other) noexcept;
  MappedArray& operator=(MappedArray&&) = delete;
  ~MappedArray();

  // Element `index`, or nullptr beyond the last one. Programs read and write it
  // at the same time: use atomic accesses of at most 8 bytes.
  void* At(uint32_t index) const;
  template <typename Value>
  Value* At(uint32_t index) const {
    return sizeof(Value) <= value_size_ ? static_cast<Value*>(At(index))
                                        : nullptr;
  }
  uint32_t size() const { return entries_; }

 private:
  MappedArray(void* memory, uint32_t value_size, uint32_t entries);

  void* memory_;
  uint32_t value_size_;
  uint32_t entries_;
};

}  // namespace bpfgrant

#endif  // BPFGRANT_MAPPED_ARRAY_H_

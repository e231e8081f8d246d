#include "daemon/loader/parameter_object.h"

#include <bpf/libbpf.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "bpf-programs/include/bpfgrant/parameter.h"
#include "daemon/loader/object.h"
#include "policy/parameter.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::daemon {
namespace {

bool IsNumber(const v1::Parameter& parameter) {
  return parameter.has_integer() || parameter.has_enumeration();
}

// Whether `size` bytes have room for a number, signed or not.
bool Fits(int64_t number, size_t size) {
  if (size == sizeof(int64_t)) return true;
  if (size != 1 && size != 2 && size != 4) return false;
  const int64_t end = int64_t{1} << (8 * size);
  return number >= -end / 2 && number < end;
}

// The numbers between which all values are.
std::pair<int64_t, int64_t> Bounds(const v1::Parameter& parameter) {
  if (parameter.has_integer()) {
    return {parameter.integer().min(), parameter.integer().max()};
  }
  std::pair<int64_t, int64_t> bounds{std::numeric_limits<int64_t>::max(),
                                     std::numeric_limits<int64_t>::min()};
  for (const auto& choice : parameter.enumeration().choice()) {
    bounds.first = std::min(bounds.first, choice.value());
    bounds.second = std::max(bounds.second, choice.value());
  }
  return bounds;
}

// A negative number takes the upper half of what its bytes can say.
bool HasRoom(const v1::Parameter& parameter, size_t size) {
  if (parameter.has_prefix()) return size == sizeof(bpfgrant_prefix);
  if (parameter.has_bytes()) {
    return size >= sizeof(bpfgrant_bytes) + parameter.bytes().max_length();
  }
  const auto [least, most] = Bounds(parameter);
  return Fits(least, size) && Fits(most, size) &&
         (least >= 0 || size == sizeof(int64_t) ||
          most < int64_t{1} << (8 * size - 1));
}

std::string StoredNumber(int64_t number, size_t size) {
  std::string bytes(size, '\0');
  const auto store = [&](auto narrow) {
    std::memcpy(bytes.data(), &narrow, sizeof(narrow));
  };
  if (!Fits(number, size)) return "";
  if (size == 1) store(static_cast<uint8_t>(number));
  if (size == 2) store(static_cast<uint16_t>(number));
  if (size == 4) store(static_cast<uint32_t>(number));
  if (size == 8) store(number);
  return bytes;
}

std::string StoredBytes(const std::string& value, size_t size) {
  if (sizeof(bpfgrant_bytes) + value.size() > size) return "";
  bpfgrant_bytes head{static_cast<uint32_t>(value.size())};
  std::string bytes(size, '\0');
  std::memcpy(bytes.data(), &head, sizeof(head));
  std::memcpy(bytes.data() + sizeof(head), value.data(), value.size());
  return bytes;
}

std::string StoredPrefix(const v1::AddressPrefix& prefix, size_t size) {
  bpfgrant_prefix stored{};
  if (size != sizeof(stored) ||
      prefix.address().size() > sizeof(stored.address)) {
    return "";
  }
  stored.family = prefix.address().size() == 4 ? 4 : 6;
  stored.length = prefix.length();
  std::memcpy(stored.address, prefix.address().data(), prefix.address().size());
  return {reinterpret_cast<const char*>(&stored), sizeof(stored)};
}

absl::Status CheckEntry(const bpf_object* object, const Manifest& manifest,
                        int index) {
  const v1::Parameter& parameter = manifest.message().parameter(index);
  const v1::Parameter::Entry& entry = parameter.entry();
  const bpf_map* map = MapOf(object, entry.map());
  const size_t size = SizeOfEntry(parameter);
  const bool fits =
      map != nullptr && entry.index() < bpf_map__max_entries(map) &&
      (parameter.has_file() ||
       (HasRoom(parameter, size) &&
        uint64_t{entry.offset()} + size <= bpf_map__value_size(map)));
  if (fits) return absl::OkStatus();
  return manifest.RefuseAt(
      manifest.text().Where("parameter", index, "entry"),
      v1::REASON_OBJECT_MISMATCH,
      absl::StrCat("map '", entry.map(), "' has no room there for parameter '",
                   parameter.name(), "'"));
}

absl::Status CheckConstant(const bpf_object* object, const Manifest& manifest,
                           int index) {
  const v1::Parameter& parameter = manifest.message().parameter(index);
  const size_t size =
      SizeOfConstant(object, kParameterSection, parameter.constant());
  if (size > 0 && HasRoom(parameter, size)) return absl::OkStatus();
  return manifest.RefuseAt(
      manifest.text().Where("parameter", index, "constant"),
      v1::REASON_OBJECT_MISMATCH,
      absl::StrCat("the object has no BPFGRANT_PARAMETER '",
                   parameter.constant(), "' with room for parameter '",
                   parameter.name(), "'"));
}

}  // namespace

absl::Status CheckParameterPlaces(const bpf_object* object,
                                  const Manifest& manifest) {
  for (int i = 0; i < manifest.message().parameter_size(); ++i) {
    auto status = manifest.message().parameter(i).has_entry()
                      ? CheckEntry(object, manifest, i)
                      : CheckConstant(object, manifest, i);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SetParameters(const bpf_object* object,
                           const v1::Manifest& manifest,
                           absl::Span<const v1::ParameterValue> values,
                           bool ranges) {
  policy::Parameters constants;
  for (const v1::Parameter& parameter : manifest.parameter()) {
    if (parameter.has_constant()) *constants.Add() = parameter;
  }
  const auto settled =
      policy::Settle(constants, {values.begin(), values.end()}, ranges);
  if (!settled.ok()) return settled.status();
  for (const v1::ParameterValue& value : *settled) {
    const v1::Parameter& parameter =
        *policy::FindParameter(constants, value.name());
    const size_t size =
        SizeOfConstant(object, kParameterSection, parameter.constant());
    const std::string bytes = Stored(parameter, value, size);
    if (bytes.empty() ||
        !SetConstant(object, kParameterSection, parameter.constant(),
                     bytes.data(), bytes.size())) {
      return Refuse(v1::REASON_PARAMETER_RANGE,
                    absl::StrCat("parameter '", parameter.name(), "' is ",
                                 policy::RangeOf(parameter)));
    }
  }
  return absl::OkStatus();
}

std::string Stored(const v1::Parameter& parameter,
                   const v1::ParameterValue& value, size_t size) {
  if (value.has_bytes()) return StoredBytes(value.bytes(), size);
  if (value.has_prefix()) return StoredPrefix(value.prefix(), size);
  return IsNumber(parameter)
             ? StoredNumber(policy::NumberOf(parameter, value), size)
             : "";
}

size_t SizeOfEntry(const v1::Parameter& parameter) {
  if (parameter.has_prefix()) return sizeof(bpfgrant_prefix);
  if (parameter.has_bytes()) {
    return sizeof(bpfgrant_bytes) + parameter.bytes().max_length();
  }
  return parameter.entry().size();
}

}  // namespace bpfgrant::daemon

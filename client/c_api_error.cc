// Errors of the C library, and the table of reasons.

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "client/c_api.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant {
namespace {

// What is before `message`.
constexpr size_t kErrorHeadBytes = offsetof(bpfgrant_error, message);

bool CarriesReason(const absl::Status& status) {
  bool carries = false;
  status.ForEachPayload([&](auto, const auto&) { carries = true; });
  return carries;
}

int NumberOfUnavailable(v1::Reason reason) {
  if (reason == v1::REASON_BUSY) return EAGAIN;
  if (reason == v1::REASON_PROGRAM_UNAVAILABLE) return ENOEXEC;
  return ENOTCONN;
}

int NumberOfExhausted(v1::Reason reason) {
  if (reason == v1::REASON_UNSPECIFIED) return ENOBUFS;
  return reason == v1::REASON_RATE ? EAGAIN : EDQUOT;
}

// bpfgrant_error(3) has this table.
int NumberOf(absl::StatusCode code, v1::Reason reason) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return EINVAL;
    case absl::StatusCode::kNotFound:
      return ENOENT;
    case absl::StatusCode::kAlreadyExists:
      return EEXIST;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return EACCES;
    case absl::StatusCode::kFailedPrecondition:
      return EPERM;
    case absl::StatusCode::kResourceExhausted:
      return NumberOfExhausted(reason);
    case absl::StatusCode::kUnavailable:
      return NumberOfUnavailable(reason);
    case absl::StatusCode::kDeadlineExceeded:
      return ETIMEDOUT;
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted:
      return ECANCELED;
    case absl::StatusCode::kOutOfRange:
      return ERANGE;
    case absl::StatusCode::kDataLoss:
      return EBADMSG;
    case absl::StatusCode::kUnimplemented:
      return EOPNOTSUPP;
    default:
      return EIO;
  }
}

}  // namespace

void CopyText(const std::string& text, char* to, size_t size) {
  size_t length = std::min(text.size(), size - 1);
  while (length > 0 && length < text.size() && (text[length] & 0xc0) == 0x80) {
    --length;
  }
  std::memcpy(to, text.data(), length);
  std::memset(to + length, 0, size - length);
}

int Fail(const absl::Status& status, bpfgrant_error* error) {
  const v1::Reason reason =
      CarriesReason(status) ? ReasonOf(status) : v1::REASON_UNSPECIFIED;
  if (error != nullptr && error->size > kErrorHeadBytes) {
    error->reason = reason;
    CopyText(std::string(status.message()), error->message,
             std::min<size_t>(error->size - kErrorHeadBytes,
                              sizeof(error->message)));
  }
  return -NumberOf(status.code(), reason);
}

int FailInvalid(const char* message, bpfgrant_error* error) {
  return Fail(absl::InvalidArgumentError(message), error);
}

int ResultOf(const absl::Status& status, bpfgrant_error* error) {
  return status.ok() ? 0 : Fail(status, error);
}

}  // namespace bpfgrant

const char* bpfgrant_reason_name(int32_t reason) noexcept {
  using bpfgrant::v1::Reason;
  // Never freed: what was returned is valid for ever.
  static const auto& names = *[] {
    auto* all = new std::vector<std::string>(bpfgrant::v1::Reason_ARRAYSIZE);
    for (int number = 1; number < bpfgrant::v1::Reason_ARRAYSIZE; ++number) {
      if (!bpfgrant::v1::Reason_IsValid(number)) continue;
      (*all)[static_cast<size_t>(number)] =
          bpfgrant::ReasonName(static_cast<Reason>(number));
    }
    return all;
  }();
  if (reason <= 0 || static_cast<size_t>(reason) >= names.size()) {
    return nullptr;
  }
  const std::string& name = names[static_cast<size_t>(reason)];
  return name.empty() ? nullptr : name.c_str();
}

const char* bpfgrant_reason_next_step(int32_t reason) noexcept {
  // A literal, with a 0 behind it.
  return bpfgrant::NextStep(static_cast<bpfgrant::v1::Reason>(reason)).data();
}

const char* bpfgrant_version(void) noexcept { return BPFGRANT_VERSION; }

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "daemon/loader/confinement.h"
#include "daemon/loader/digest.h"
#include "daemon/loader/inspection/code.h"
#include "daemon/loader/inspection/inspection.h"
#include "daemon/loader/loop_link.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {
namespace {

absl::Status Unreadable(const std::string& path, std::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::string(why)));
}

absl::StatusOr<std::string> ReadObject(const std::string& path) {
  const UniqueFd file(
      open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat info {};
  if (!file.valid() || fstat(file.get(), &info) < 0) {
    return Unreadable(path, std::strerror(errno));
  }
  if (!S_ISREG(info.st_mode)) return Unreadable(path, "it is no plain file");
  // One more tells that there is more, however the file grows meanwhile.
  std::string bytes(kMaxObjectBytes + 1, '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t length =
        read(file.get(), bytes.data() + done, bytes.size() - done);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return Unreadable(path, std::strerror(errno));
    if (length == 0) break;
    done += static_cast<size_t>(length);
  }
  if (done > kMaxObjectBytes) {
    return Refuse(v1::REASON_TOO_LARGE,
                  absl::StrCat(path, ": an object has at most ",
                               kMaxObjectBytes, " bytes"));
  }
  bytes.resize(done);
  return bytes;
}

// The same refusal, with the file's name in front, and without what to do about
// a file of the catalog.
absl::Status About(const std::string& path, const absl::Status& status) {
  if (ReasonOf(status) == v1::REASON_INTERNAL) return status;
  v1::Refusal refusal = RefusalOf(status);
  std::string_view what = refusal.message();
  const std::string_view next = NextStep(refusal.reason());
  if (what.ends_with(next)) what.remove_suffix(next.size());
  while (what.ends_with(' ')) what.remove_suffix(1);
  refusal.set_message(absl::StrCat(path, ": ", std::string(what)));
  return StatusOf(refusal);
}

// The author's part of a loop has a step and no program.
bool IsLoopStep(const Code& code) {
  return code.FindFunction(kLoopStep) < code.functions.size() &&
         std::ranges::all_of(code.functions, [](const Function& function) {
           return function.section == ".text";
         });
}

absl::StatusOr<std::string> Inspect(std::string_view bytes) {
  SealedBytes linked;
  if (IsLoopStep(ReadCode(bytes))) {
    auto made = LinkLoop(bytes);
    if (!made.ok()) return made.status();
    linked = *std::move(made);
  }
  if (auto status = ForbidSystemCalls(); !status.ok()) return status;
  const auto inspection =
      InspectObject(linked.view().empty() ? bytes : linked.view());
  if (!inspection.ok()) return inspection.status();
  return inspection->SerializeAsString();
}

}  // namespace

absl::StatusOr<v1::Inspection> InspectFile(const std::string& path,
                                           std::chrono::milliseconds deadline) {
  const auto bytes = ReadObject(path);
  if (!bytes.ok()) return bytes.status();
  const auto found = RunConfined([&] { return Inspect(*bytes); }, deadline);
  if (!found.ok()) return About(path, found.status());
  v1::Inspection inspection;
  if (!inspection.ParseFromString(*found)) {
    return absl::InternalError("the reader's answer makes no sense");
  }
  inspection.set_file(path);
  inspection.set_bytes(bytes->size());
  inspection.set_sha256(Sha256({*bytes}));
  return inspection;
}

}  // namespace bpfgrant::daemon

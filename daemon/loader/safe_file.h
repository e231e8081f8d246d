// The administrator's files, read so that nobody but root has a say in what
// is read: each folder on the way is walked and judged, each file is judged on
// the fd it is read from, and its bytes are read once into sealed memory.
//
// It must not know what the bytes mean.

#ifndef DAEMON_LOADER_SAFE_FILE_H_
#define DAEMON_LOADER_SAFE_FILE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/mitigations.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::daemon {

// Bytes in a memfd that nobody, this process included, can change or resize
// any more. Owns the memfd and a read-only mapping of it.
class SealedBytes {
 public:
  SealedBytes() = default;
  SealedBytes(SealedBytes&& other) noexcept;
  SealedBytes& operator=(SealedBytes&& other) noexcept;
  SealedBytes(const SealedBytes&) = delete;
  SealedBytes& operator=(const SealedBytes&) = delete;
  ~SealedBytes();

  // A sealed copy of `bytes`; `name` shows in /proc only.
  // kInternal: the errno of the call that failed.
  static absl::StatusOr<SealedBytes> Copy(std::string_view bytes,
                                          const std::string& name);

  // Valid as long as this object.
  std::string_view view() const { return {data_, size_}; }
  // The memfd; remains owned.
  int fd() const { return fd_.get(); }
  // Gives the memfd to the caller and unmaps; view() is empty from then on.
  UniqueFd TakeFd() &&;

 private:
  void Unmap();

  UniqueFd fd_;
  const char* data_ = nullptr;
  size_t size_ = 0;
};

// One folder of the administrator's, open. "Safe" means: owned by root (or by
// the user this process runs as), and nobody else may write.
class SafeDirectory {
 public:
  // Opens an absolute `path`, walking it component by component: none may be a
  // symbolic link, each must be safe, though the ones above the last may be
  // sticky like /tmp. Without the mitigation file_safety nothing is judged.
  //
  // Errors: kNotFound: there is none. REASON_FILE_UNSAFE, with which component
  // and why. REASON_INVALID_ARGUMENT: the path is not absolute. kInternal: any
  // other errno.
  static absl::StatusOr<SafeDirectory> Open(const std::string& path,
                                            const Mitigations& mitigations);

  // Names in it that end in `suffix` and do not begin with a dot, sorted.
  // REASON_TOO_LARGE: more than kMaxFilesPerDirectory of them.
  absl::StatusOr<std::vector<std::string>> List(std::string_view suffix) const;

  // The file `name`, read once. It must be a regular file, safe, with one link,
  // at most `limit` bytes long, and nobody may have it open for writing.
  //
  // Errors: kNotFound: there is none. REASON_FILE_UNSAFE, REASON_TOO_LARGE.
  // REASON_INVALID_ARGUMENT: `name` is not a plain file name. kInternal: any
  // other errno.
  absl::StatusOr<SealedBytes> Read(const std::string& name, size_t limit) const;

  // The folder `name` in this one, which must be as safe as the last component
  // of Open's path. Errors: Open's; REASON_INVALID_ARGUMENT: `name` is not a
  // plain file name.
  absl::StatusOr<SafeDirectory> OpenFolder(const std::string& name) const;

  // Whether `name` is root's symbolic link to /dev/null, the one link that
  // means something: that there is nothing.
  bool IsNullLink(const std::string& name) const;

  // Another owner of the same open folder.
  absl::StatusOr<SafeDirectory> Duplicate() const;

  const std::string& path() const { return path_; }
  // How messages call the file `name` in this folder: in ASCII, whatever bytes
  // the name has.
  std::string PathOf(const std::string& name) const;

 private:
  SafeDirectory(UniqueFd fd, std::string path, bool judged)
      : fd_(std::move(fd)), path_(std::move(path)), judged_(judged) {}

  UniqueFd fd_;
  std::string path_;
  bool judged_;  // the mitigation file_safety
};

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_SAFE_FILE_H_

#include "daemon/loader/loop_link.h"

#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/loader/child.h"
#include "daemon/loader/elf_file.h"
#include "daemon/loader/object.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/limits.h"

extern "C" const char bpfgrant_loop_entry_begin[];
extern "C" const char bpfgrant_loop_entry_end[];

namespace bpfgrant::daemon {
namespace {

// Linking takes a few milliseconds.
constexpr std::chrono::milliseconds kLinkerDeadline{5000};
constexpr size_t kMaxComplaintBytes = 512;

// Sections in which an author's object may have nothing.
constexpr std::array<std::string_view, 3> kPrivateSections = {
    ".data.bpfgrant", ".rodata.gate", ".rodata.ring"};

std::string PathOf(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

// In the child. The linker of libbpf before 1.6 takes file names only.
int Link(int author, int entry, int output) {
  bpf_linker* linker = bpf_linker__new(PathOf(output).c_str(), nullptr);
  if (linker == nullptr) return -errno;
  // The author's first: its license, not the entry's, is what the kernel sees.
  int error = bpf_linker__add_file(linker, PathOf(author).c_str(), nullptr);
  if (error == 0) {
    error = bpf_linker__add_file(linker, PathOf(entry).c_str(), nullptr);
  }
  if (error == 0) error = bpf_linker__finalize(linker);
  bpf_linker__free(linker);
  return error;
}

// In the child. Says what libbpf complains of, if it does.
int LinkAndSay(int author, int entry, int output, int pipe) {
  const LibbpfLog log;
  const int error = Link(author, entry, output);
  if (error == 0) return 0;
  std::string said = log.LastLine();
  if (said.empty()) said = std::strerror(-error);
  said.resize(std::min(said.size(), kMaxComplaintBytes));
  SayAll(pipe, said);
  return 1;
}

absl::Status ErrnoStatus(const char* call) {
  return absl::InternalError(
      absl::StrCat("linking a loop: ", call, ": ", std::strerror(errno)));
}

absl::Status DoesNotLink(const std::string& why) {
  return Refuse(
      v1::REASON_OBJECT_MISMATCH,
      absl::StrCat("it does not link behind the entry of loops: ",
                   why.empty() ? std::string("the linker crashed") : why));
}

absl::StatusOr<SealedBytes> RunLinker(std::string_view author) {
  auto first = SealedBytes::Copy(author, "bpfgrant:author");
  if (!first.ok()) return first.status();
  auto second = SealedBytes::Copy(LoopEntryObject(), "bpfgrant:entry");
  if (!second.ok()) return second.status();
  const UniqueFd output(memfd_create("bpfgrant:linked", MFD_CLOEXEC));
  if (!output.valid()) return ErrnoStatus("memfd_create");
  const auto end = RunInChild(
      [&](int pipe) {
        return LinkAndSay(first->fd(), second->fd(), output.get(), pipe);
      },
      kLinkerDeadline, kMaxComplaintBytes);
  if (!end.ok()) return end.status();
  if (end->why == ChildEnd::Why::kTooLate) {
    return DoesNotLink("linking it takes too long");
  }
  if (!WIFEXITED(end->status) || WEXITSTATUS(end->status) != 0) {
    return DoesNotLink(end->said);
  }
  std::string linked(kMaxObjectBytes, '\0');
  const ssize_t length = pread(output.get(), linked.data(), linked.size(), 0);
  if (length <= 0) return ErrnoStatus("reading what was linked");
  linked.resize(length);
  return SealedBytes::Copy(linked, "bpfgrant:loop");
}

// Bytes of an object's section; 0: it has none. The entry has functions that
// are not in it, so libbpf does not open it.
size_t SectionBytes(std::string_view object, std::string_view wanted) {
  const auto file = ElfFile::OfBytes(object);
  size_t bytes = 0;
  if (!file.has_value()) return bytes;
  file->ForEach([&](const ElfFile::Section& section) {
    if (section.name == wanted) bytes += section.size;
  });
  return bytes;
}

// Nothing but the entry is a program, and what is private to it has not grown.
absl::Status CheckLinked(std::string_view linked) {
  const auto object = OpenObject(linked, "loop");
  if (!object.ok()) return object.status();
  bpf_program* program;
  bpf_object__for_each_program(program, object->get()) {
    const std::string name = bpf_program__name(program);
    if (name != kLoopEntry) {
      return Refuse(v1::REASON_OBJECT_MISMATCH,
                    absl::StrCat("the object has a program '", Printable(name),
                                 "' of its own; a loop defines the function '",
                                 kLoopStep, "' and no program"));
    }
  }
  for (const std::string_view section : kPrivateSections) {
    if (SectionBytes(linked, section) !=
        SectionBytes(LoopEntryObject(), section)) {
      return Refuse(
          v1::REASON_OBJECT_MISMATCH,
          absl::StrCat("the object has data in the section ",
                       std::string(section), ", which is the entry's own"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view LoopEntryObject() {
  return {
      bpfgrant_loop_entry_begin,
      static_cast<size_t>(bpfgrant_loop_entry_end - bpfgrant_loop_entry_begin)};
}

absl::StatusOr<SealedBytes> LinkLoop(std::string_view author) {
  if (access("/proc/self/fd", F_OK) != 0) {
    return absl::InternalError("linking a loop needs /proc, which is not here");
  }
  auto linked = RunLinker(author);
  if (!linked.ok()) return linked.status();
  if (auto status = CheckLinked(linked->view()); !status.ok()) return status;
  return linked;
}

}  // namespace bpfgrant::daemon

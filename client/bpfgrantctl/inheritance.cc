#include "client/bpfgrantctl/inheritance.h"

#include <fcntl.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace bpfgrant::ctl {
namespace {

constexpr int kFirst = SD_LISTEN_FDS_START;

}  // namespace

std::vector<NamedFd> TakeListenFds() {
  char** names = nullptr;
  const int count = sd_listen_fds_with_names(/*unset_environment=*/1, &names);
  std::vector<NamedFd> fds;
  for (int i = 0; i < count; ++i) {
    fds.push_back({names[i], UniqueFd(kFirst + i)});
    std::free(names[i]);
  }
  std::free(names);
  return fds;
}

void Inheritance::Add(std::string name, UniqueFd fd, bool listed) {
  const std::string plain = name;
  for (int i = 2; Find(name) != nullptr; ++i) {
    name = absl::StrCat(plain, "#", i);
  }
  entries_.push_back({std::move(name), std::move(fd), listed, listed, -1});
}

void Inheritance::AddListed(std::string name, UniqueFd fd) {
  Add(std::move(name), std::move(fd), true);
}

void Inheritance::AddNamed(std::string name, UniqueFd fd) {
  Add(std::move(name), std::move(fd), false);
}

Inheritance::Entry* Inheritance::Find(const std::string& name) {
  const auto found =
      std::find_if(entries_.begin(), entries_.end(),
                   [&](const Entry& entry) { return entry.name == name; });
  return found == entries_.end() ? nullptr : &*found;
}

absl::Status Inheritance::Place(const std::string& name, int number) {
  Entry* entry = Find(name);
  if (entry == nullptr) {
    return absl::NotFoundError(absl::StrCat(
        "there is no fd '", name, "' but ",
        absl::StrJoin(entries_, ", ", [](std::string* out, const Entry& each) {
          absl::StrAppend(out, each.name);
        })));
  }
  entry->listed = false;
  entry->wanted = true;
  entry->number = number;
  return absl::OkStatus();
}

bool Inheritance::IsTaken(int number) const {
  return std::any_of(
      entries_.begin(), entries_.end(),
      [number](const Entry& entry) { return entry.number == number; });
}

absl::Status Inheritance::Settle() {
  int next = kFirst;
  for (Entry& entry : entries_) {
    if (!entry.listed) continue;
    if (IsTaken(next)) {
      return absl::InvalidArgumentError(
          absl::StrCat("fd ", next, " is needed for '", entry.name,
                       "': those of LISTEN_FDS follow each other from 3 on"));
    }
    entry.number = next++;
  }
  for (Entry& entry : entries_) {
    if (entry.number >= 0) continue;
    while (IsTaken(next)) ++next;
    entry.number = next;
  }
  return absl::OkStatus();
}

std::string Inheritance::Fill(const std::string& word) {
  std::string filled;
  size_t at = 0;
  while (at < word.size()) {
    const size_t end = word[at] == '{' ? word.find('}', at) : std::string::npos;
    Entry* entry = end == std::string::npos
                       ? nullptr
                       : Find(word.substr(at + 1, end - at - 1));
    if (entry == nullptr) {
      filled += word[at++];
      continue;
    }
    entry->wanted = true;
    absl::StrAppend(&filled, entry->number);
    at = end + 1;
  }
  return filled;
}

void Inheritance::SetEnvironment() const {
  std::vector<std::string> names;
  for (const Entry& entry : entries_) {
    if (entry.listed) names.push_back(entry.name);
  }
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) {
    unsetenv(name);
  }
  if (names.empty()) return;
  setenv("LISTEN_PID", absl::StrCat(getpid()).c_str(), 1);
  setenv("LISTEN_FDS", absl::StrCat(names.size()).c_str(), 1);
  setenv("LISTEN_FDNAMES", absl::StrJoin(names, ":").c_str(), 1);
}

int Inheritance::Execute(const std::vector<std::string>& command, int session) {
  int behind = kFirst;
  for (const Entry& entry : entries_) {
    if (entry.wanted) behind = std::max(behind, entry.number + 1);
  }
  // Out of the way of all numbers first.
  for (Entry& entry : entries_) {
    if (!entry.wanted) continue;
    entry.fd = UniqueFd(fcntl(entry.fd.get(), F_DUPFD_CLOEXEC, behind + 1));
    if (!entry.fd.valid()) return errno;
  }
  const UniqueFd held(fcntl(session, F_DUPFD_CLOEXEC, behind + 1));
  if (!held.valid()) return errno;
  if (close_range(kFirst, ~0U, CLOSE_RANGE_CLOEXEC) < 0) return errno;
  for (const Entry& entry : entries_) {
    if (entry.wanted && dup2(entry.fd.get(), entry.number) < 0) return errno;
  }
  if (dup2(held.get(), behind) < 0) return errno;
  SetEnvironment();
  setenv("BPFGRANT_SESSION_FD", absl::StrCat(behind).c_str(), 1);
  std::vector<char*> words;
  for (const std::string& word : command) {
    words.push_back(const_cast<char*>(word.c_str()));
  }
  words.push_back(nullptr);
  execvp(words.front(), words.data());
  return errno;
}

}  // namespace bpfgrant::ctl

#include "daemon/broker/ledger_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace bpfgrant::broker {
namespace {

// "bpfgrant" and the version of this form.
constexpr uint64_t kForm = 0x62706667726e7401;
constexpr size_t kFileBytes =
    LedgerFile::kPlaceBytes * (size_t{LedgerFile::kPlaces} + 1);
// Nobody makes it shorter under our mapping.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// Of an entry. Whatever else stands there is no record.
constexpr uint32_t kFree = 0;
constexpr uint32_t kThere = 1;
constexpr uint32_t kMarked = 2;

absl::Status Failed(absl::string_view what) {
  return absl::InternalError(
      absl::StrCat("the ledger's file, ", what, ": ", std::strerror(errno)));
}

}  // namespace

struct LedgerFile::Head {
  uint64_t form;
  uint64_t next_grant;
  uint64_t next_session;
  uint64_t next_record;
  uint64_t restarts;
  // Places below it were used at some time; those above are holes in the file,
  // which must not be read: that would fill them.
  uint64_t used;
};

struct LedgerFile::Entry {
  uint32_t state;
  uint32_t size;
  uint64_t number;
  uint64_t unused;
  char bytes[kMaxRecordBytes];
};

LedgerFile::LedgerFile(UniqueFd file, void* memory)
    : file_(std::move(file)), memory_(memory) {}

LedgerFile::LedgerFile(LedgerFile&& other) noexcept
    : file_(std::move(other.file_)),
      memory_(std::exchange(other.memory_, nullptr)),
      free_(std::move(other.free_)) {}

LedgerFile::~LedgerFile() {
  if (memory_ != nullptr) munmap(memory_, kFileBytes);
}

absl::StatusOr<LedgerFile> LedgerFile::Create() {
  static_assert(sizeof(Entry) == kPlaceBytes);
  static_assert(sizeof(Head) <= kPlaceBytes);
  UniqueFd file(
      memfd_create("bpfgrant:ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file.valid()) return Failed("memfd_create");
  if (ftruncate(file.get(), kFileBytes) < 0) return Failed("ftruncate");
  if (fcntl(file.get(), F_ADD_SEALS, kSeals) < 0) return Failed("sealing");
  const uint64_t head[] = {kForm, 1, 1, 1, 0, 0};
  static_assert(sizeof(head) == sizeof(Head));
  if (pwrite(file.get(), head, sizeof(head), 0) != sizeof(head)) {
    return Failed("write");
  }
  return Open(std::move(file));
}

absl::StatusOr<LedgerFile> LedgerFile::Open(UniqueFd file) {
  struct stat status {};
  if (fstat(file.get(), &status) < 0) return Failed("fstat");
  const int seals = fcntl(file.get(), F_GET_SEALS);
  if (status.st_size != static_cast<off_t>(kFileBytes) || seals != kSeals) {
    return absl::FailedPreconditionError("that is no ledger's file");
  }
  void* memory = mmap(nullptr, kFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                      file.get(), 0);
  if (memory == MAP_FAILED) return Failed("mmap");
  LedgerFile ledger(std::move(file), memory);
  if (ledger.head().form != kForm) {
    return absl::FailedPreconditionError(
        "the ledger's file is of another form than this daemon's");
  }
  ++ledger.head().restarts;
  for (Place place = ledger.used(); place > 0; --place) {
    const uint32_t state = ledger.At(place - 1).state;
    if (state != kThere && state != kMarked) ledger.free_.push_back(place - 1);
  }
  return ledger;
}

LedgerFile::Place LedgerFile::used() const {
  return static_cast<Place>(std::min<uint64_t>(head().used, kPlaces));
}

LedgerFile::Entry& LedgerFile::At(Place place) const {
  return *reinterpret_cast<Entry*>(static_cast<char*>(memory_) +
                                   kPlaceBytes * (size_t{place} + 1));
}

std::optional<LedgerFile::Place> LedgerFile::Add(std::string_view bytes) {
  if (bytes.size() > kMaxRecordBytes) return std::nullopt;
  Place place = used();
  if (!free_.empty()) {
    place = free_.back();
    free_.pop_back();
  } else if (place < kPlaces) {
    head().used = place + 1;
  } else {
    return std::nullopt;
  }
  Entry& entry = At(place);
  std::memcpy(entry.bytes, bytes.data(), bytes.size());
  entry.size = static_cast<uint32_t>(bytes.size());
  entry.number = head().next_record++;
  std::atomic_ref(entry.state).store(kThere, std::memory_order_release);
  return place;
}

std::optional<LedgerFile::Place> LedgerFile::Replace(std::optional<Place> place,
                                                     std::string_view bytes) {
  const std::optional<Place> added = Add(bytes);
  if (added.has_value() && place.has_value()) Remove(*place);
  return added;
}

void LedgerFile::Remove(Place place) {
  // Nobody has a place twice.
  if (At(place).state == kFree) return;
  std::atomic_ref(At(place).state).store(kFree, std::memory_order_release);
  free_.push_back(place);
}

void LedgerFile::Mark(Place place) {
  std::atomic_ref(At(place).state).store(kMarked, std::memory_order_release);
}

std::vector<LedgerFile::Found> LedgerFile::Read() const {
  std::vector<Found> found;
  for (Place place = 0; place < used(); ++place) {
    const Entry& entry = At(place);
    if (entry.state != kThere && entry.state != kMarked) continue;
    const size_t size = std::min<size_t>(entry.size, kMaxRecordBytes);
    found.push_back({place, entry.number, entry.state == kMarked,
                     std::string(entry.bytes, size)});
  }
  return found;
}

uint64_t LedgerFile::NextGrant() { return head().next_grant++; }
uint64_t LedgerFile::NextSession() { return head().next_session++; }
uint64_t LedgerFile::restarts() const { return head().restarts - 1; }

}  // namespace bpfgrant::broker

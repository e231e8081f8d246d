// The ledger's file: records in memory that outlives the broker, since the
// service manager keeps an fd of it. A record is there whole or not at all,
// whenever the broker is killed.
//
// It must not know what the records say, and it believes nothing that it finds:
// what reads it may be another version than what wrote it.

#ifndef DAEMON_BROKER_LEDGER_FILE_H_
#define DAEMON_BROKER_LEDGER_FILE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/wire/unique_fd.h"

namespace bpfgrant::broker {

class LedgerFile {
 public:
  // Where a record is. It stays there.
  using Place = uint32_t;

  // A record with its place. Bytes.
  static constexpr size_t kPlaceBytes = 2048;
  static constexpr size_t kHeadBytes = 24;
  static constexpr size_t kMaxRecordBytes = kPlaceBytes - kHeadBytes;
  // As many as there may be sessions and gates, and one more for a change.
  static constexpr uint32_t kPlaces = 65536;

  // An empty one. kInternal: the kernel refused, with its errno.
  static absl::StatusOr<LedgerFile> Create();
  // One that Create made, perhaps in an earlier process.
  // kFailedPrecondition: it is none, or of another form.
  static absl::StatusOr<LedgerFile> Open(UniqueFd file);
  ~LedgerFile();
  LedgerFile(LedgerFile&& other) noexcept;
  LedgerFile& operator=(LedgerFile&&) = delete;

  int fd() const { return file_.get(); }

  // Writes a record, which counts from then on. nullopt: it is too large, or
  // there is no place left.
  std::optional<Place> Add(std::string_view bytes);
  // The record at `place`, if it is given, counts no more, and this one does
  // instead: there is no moment with neither, and after one with both only the
  // new one is found. Returns its place; nullopt as Add, and nothing is
  // changed.
  std::optional<Place> Replace(std::optional<Place> place,
                               std::string_view bytes);
  void Remove(Place place);
  // A mark on a record, not there at first.
  void Mark(Place place);

  struct Found {
    Place place;
    uint64_t number;  // higher than that of any record from before
    bool marked;
    std::string bytes;
  };
  // All there are.
  std::vector<Found> Read() const;

  // Numbers that are never given out twice, not even by a later broker.
  uint64_t NextGrant();
  uint64_t NextSession();
  // How many brokers have opened it before this one.
  uint64_t restarts() const;

 private:
  struct Head;
  struct Entry;

  LedgerFile(UniqueFd file, void* memory);
  Entry& At(Place place) const;
  Place used() const;
  Head& head() const { return *static_cast<Head*>(memory_); }

  UniqueFd file_;
  void* memory_ = nullptr;
  std::vector<Place> free_;
};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_LEDGER_FILE_H_

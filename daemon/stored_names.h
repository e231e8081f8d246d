// The names of what is in the service manager's store: said once, for those who
// put it there and those who find it.

#ifndef DAEMON_STORED_NAMES_H_
#define DAEMON_STORED_NAMES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bpfgrant::daemon {

// The broker's.
inline constexpr char kStoredLedger[] = "ledger";
inline constexpr char kStoredSession[] = "session";    // .ID: its socket
inline constexpr char kStoredClient[] = "client";      // .ID: its pidfd
inline constexpr char kStoredInstance[] = "instance";  // .SLOT.NONCE: its fds
inline constexpr char kStoredShared[] = "shared";      // .SLOT.NONCE: maps
// The loader's.
inline constexpr char kStoredGates[] = "gates";
inline constexpr char kStoredTrace[] = "trace";
inline constexpr char kStoredSteps[] = "steps";
inline constexpr char kStoredLink[] = "link";        // .SLOT.NONCE: a loop's
inline constexpr char kStoredProcess[] = "process";  // .SLOT.NONCE: its pidfd
inline constexpr char kStoredMachine[] = "machine";  // .TAG.PART.NUMBER

// "word", "word.1", "word.1.2".
std::string StoredName(std::string_view word,
                       const std::vector<uint64_t>& numbers);
// The numbers of such a name; nullopt: it does not begin with that word, or is
// of another form.
std::optional<std::vector<uint64_t>> NumbersOf(std::string_view name,
                                               std::string_view word);
// Whether this daemon knows whose that is, and whose.
enum class StoredBy { kNobody, kBroker, kLoader };
StoredBy WhoStored(std::string_view name);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_STORED_NAMES_H_

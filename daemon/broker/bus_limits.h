// What one may ask of bpfgrantd over the bus, beside limits.h: numbers that
// clients of the sockets never meet.

#ifndef DAEMON_BROKER_BUS_LIMITS_H_
#define DAEMON_BROKER_BUS_LIMITS_H_

#include <chrono>
#include <cstddef>

namespace bpfgrant::broker {

// Connections to the bus of which it has not said yet who they are: twice what
// one user may have (max_connections_per_user of dbus-daemon).
inline constexpr size_t kMaxBusStrangers = 512;
// And of which it has said so lately.
inline constexpr size_t kKeptBusCallers = 1024;
// For the bus's own answers.
inline constexpr std::chrono::milliseconds kBusAnswerDeadline{10'000};
// Words of a call: names, keys, paths. Bytes.
inline constexpr size_t kMaxBusWordBytes = 255;
inline constexpr size_t kMaxBusGroups = 1024;

// Signals of grants: so many at once, and a second after that. Who acquires and
// releases in a circle must not flood everybody's bus.
inline constexpr double kBusSignalBurst = 256;
inline constexpr double kBusSignalsPerSecond = 32;
inline constexpr std::chrono::milliseconds kBusSkippedInterval{1'000};

// Between attempts to get on the bus.
inline constexpr std::chrono::milliseconds kMinBusBackOff{250};
inline constexpr std::chrono::milliseconds kMaxBusBackOff{30'000};

// For systemd to say which job it has for the daemon.
inline constexpr std::chrono::milliseconds kJobDeadline{2'000};

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_LIMITS_H_

// Arguments of calls over the bus, as requests of the service. Their senders
// are strangers: what is too long, unknown or said twice is refused.

#ifndef DAEMON_BROKER_BUS_REQUESTS_H_
#define DAEMON_BROKER_BUS_REQUESTS_H_

#include <systemd/sd-bus.h>

#include <string>

#include "absl/status/statusor.h"
#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant::broker {

// All REASON_INVALID_ARGUMENT if the message does not say such a thing.
absl::StatusOr<std::string> ReadWord(sd_bus_message* message);
absl::StatusOr<bool> ReadBool(sd_bus_message* message);
// A kind and a value, both words: "program" "packet_sampler".
absl::StatusOr<v1::RevokeRequest> ReadRevoke(sd_bus_message* message);
// A program, and whom it is about: nothing, a pid, or somebody made up.
absl::StatusOr<v1::ExplainRequest> ReadExplain(sd_bus_message* message);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_REQUESTS_H_

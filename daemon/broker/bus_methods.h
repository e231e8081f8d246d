// The Manager object as the bus sees it: its methods, properties and signals,
// with the names that introspection shows. bpfgrant-bus(5) explains them.

#ifndef DAEMON_BROKER_BUS_METHODS_H_
#define DAEMON_BROKER_BUS_METHODS_H_

#include <systemd/sd-bus.h>

#include "daemon/broker/bus_calls.h"

namespace bpfgrant::broker {

inline constexpr char kBusName[] = "org.bpfgrant1";
inline constexpr char kBusPath[] = "/org/bpfgrant1";
inline constexpr char kBusInterface[] = "org.bpfgrant1.Manager";

// Puts the object on `bus`. `calls` must live as long as it is there. A
// negative errno if that failed.
int AddBusObject(sd_bus* bus, BusCalls& calls);

// Those that change with a reload.
void EmitReloaded(sd_bus* bus);
void EmitGrantBegan(sd_bus* bus, uint64_t grant);
void EmitGrantEnded(sd_bus* bus, uint64_t grant, v1::Reason why);
void EmitSkipped(sd_bus* bus, uint64_t count);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_METHODS_H_

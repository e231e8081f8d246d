// What the service answers, as the bodies of replies on the bus.

#ifndef DAEMON_BROKER_BUS_REPLIES_H_
#define DAEMON_BROKER_BUS_REPLIES_H_

#include <systemd/sd-bus.h>

#include "bpfgrant/v1/messages.pb.h"

namespace bpfgrant::broker {

void FillList(sd_bus_message* message, const v1::ListReply& reply);
void FillGrants(sd_bus_message* message, const v1::GrantsReply& reply);
void FillCheck(sd_bus_message* message, const v1::DescribeReply& reply);
void FillExplain(sd_bus_message* message, const v1::ExplainReply& reply);
void FillRevoke(sd_bus_message* message, const v1::RevokeReply& reply);
void FillReload(sd_bus_message* message, const v1::ReloadReply& reply);
void FillStatus(sd_bus_message* message, const v1::StatusReply& reply);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_BUS_REPLIES_H_

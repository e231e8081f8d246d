// A subject of the policy as messages have it, and back.

#ifndef DAEMON_BROKER_SUBJECT_H_
#define DAEMON_BROKER_SUBJECT_H_

#include "bpfgrant/v1/messages.pb.h"
#include "policy/subject.h"

namespace bpfgrant::broker {

// What is not known is empty there. Bytes that a peer chose and that are no
// ASCII are escaped.
v1::Subject ToMessage(const policy::Subject& subject);

// Of somebody who was made up: what is not said of cgroup and label is none,
// what is not said of the executable is not known.
policy::Subject FromMessage(const v1::Subject& message);

}  // namespace bpfgrant::broker

#endif  // DAEMON_BROKER_SUBJECT_H_

// What differs between two messages of one type, field by field.

#ifndef DAEMON_LOADER_INSPECTION_MESSAGE_DIFF_H_
#define DAEMON_LOADER_INSPECTION_MESSAGE_DIFF_H_

#include <vector>

#include "bpfgrant/v1/inspection.pb.h"
#include "google/protobuf/message.h"

namespace bpfgrant::daemon {

// Elements that have a name (or else a function) are found by it,
// at any depth; another order of these is a change, too.
std::vector<v1::Change> DiffMessages(const google::protobuf::Message& before,
                                     const google::protobuf::Message& after);

}  // namespace bpfgrant::daemon

#endif  // DAEMON_LOADER_INSPECTION_MESSAGE_DIFF_H_

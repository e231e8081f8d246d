// The same service over gRPC, for programs that have it anyway: everything but
// fds. Needs a session, which a Connection opens.

#ifndef BPFGRANT_GRPC_H_
#define BPFGRANT_GRPC_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "bpfgrant/v1/service.grpc.pb.h"
#include "client/bpfgrant/connection.h"

namespace bpfgrant {

// A stub for the daemon behind `path`.
std::unique_ptr<v1::Bpfgrant::Stub> NewStub(
    const std::string& path = kDefaultControlSocket);

// Makes `context` call in the name of `connection`'s session.
void UseSession(grpc::ClientContext& context, const Connection& connection);

// What a call came back with, as the status that the same call on a Connection
// would have: with its reason.
absl::Status ToStatus(const grpc::ClientContext& context,
                      const grpc::Status& status);

}  // namespace bpfgrant

#endif  // BPFGRANT_GRPC_H_

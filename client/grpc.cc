#include "client/bpfgrant/grpc.h"

#include "absl/strings/str_cat.h"
#include "proto/refusal/refusal.h"
#include "proto/wire/control_metadata.h"

namespace bpfgrant {

std::unique_ptr<v1::Bpfgrant::Stub> NewStub(const std::string& path) {
  return v1::Bpfgrant::NewStub(grpc::CreateChannel(
      absl::StrCat("unix:", path), grpc::InsecureChannelCredentials()));
}

void UseSession(grpc::ClientContext& context, const Connection& connection) {
  context.AddMetadata(kTokenKey, connection.session().token());
}

absl::Status ToStatus(const grpc::ClientContext& context,
                      const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const auto& metadata = context.GetServerTrailingMetadata();
  const auto found = metadata.find(kRefusalKey);
  v1::Refusal refusal;
  if (found != metadata.end() &&
      refusal.ParseFromArray(found->second.data(),
                             static_cast<int>(found->second.size()))) {
    return StatusOf(refusal);
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
}

}  // namespace bpfgrant

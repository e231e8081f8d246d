// The metadata keys of control.sock. Their "-bin" makes gRPC carry any bytes.

#ifndef PROTO_WIRE_CONTROL_METADATA_H_
#define PROTO_WIRE_CONTROL_METADATA_H_

namespace bpfgrant {

// With each call: the session's token, as HelloReply had it.
inline constexpr char kTokenKey[] = "bpfgrant-token-bin";
// With a call that was refused, trailing: a serialized bpfgrant.v1.Refusal.
inline constexpr char kRefusalKey[] = "bpfgrant-refusal-bin";

}  // namespace bpfgrant

#endif  // PROTO_WIRE_CONTROL_METADATA_H_

#include "daemon/broker/bus_methods.h"

#include <cerrno>
#include <string>
#include <utility>

#include "daemon/broker/bus_replies.h"
#include "daemon/broker/bus_requests.h"
#include "daemon/broker/identify.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant::broker {
namespace {

// What polkit is asked about (packaging/polkit).
constexpr char kRead[] = "org.bpfgrant1.read";
constexpr char kGrants[] = "org.bpfgrant1.grants";
constexpr char kRevoke[] = "org.bpfgrant1.revoke";
constexpr char kReload[] = "org.bpfgrant1.reload";

// Turns the service's answer into the bus's.
template <typename Reply>
Answer<Reply> Into(BusCalls::Answer answer,
                   void (*fill)(sd_bus_message*, const Reply&)) {
  return
      [answer = std::move(answer), fill](absl::StatusOr<Reply> reply) mutable {
        if (!reply.ok()) {
          answer(reply.status());
          return;
        }
        answer(BusCalls::Fill(
            [fill, reply = *std::move(reply)](sd_bus_message* message) {
              fill(message, reply);
            }));
      };
}

int Refused(BusCalls& calls, sd_bus_message* message, const absl::Status& why) {
  calls.Refuse(message, why);
  return 1;
}

// The process that the bus names, as far as rules ask of it. It may be another
// by now: only one of the same user's counts.
absl::Status LookAtCaller(Session& session, const BusCalls& calls) {
  absl::StatusOr<Peer> process =
      IdentifyProcess(session.peer.pid, calls.mitigations());
  if (!process.ok() || process->subject.uid != session.peer.subject.uid) {
    return Refuse(v1::REASON_PEER_UNNAMED,
                  "the process that connected to the bus is not to be found");
  }
  session.peer = *std::move(process);
  return absl::OkStatus();
}

int OnList(sd_bus_message* message, void* self, sd_bus_error*) {
  BusCalls& calls = *static_cast<BusCalls*>(self);
  const absl::StatusOr<bool> all = ReadBool(message);
  if (!all.ok()) return Refused(calls, message, all.status());
  const absl::StatusOr<std::string> after = ReadWord(message);
  if (!after.ok()) return Refused(calls, message, after.status());
  v1::ListRequest request;
  request.set_after(*after);
  calls.Begin(
      message, *all ? kRead : nullptr,
      [&calls, request, all = *all](Session& session, BusCalls::Answer answer) {
        session.administrator &= all;
        if (absl::Status who = LookAtCaller(session, calls); !who.ok()) {
          answer(who);
          return;
        }
        calls.service().List(session, request,
                             Into(std::move(answer), FillList));
      });
  return 1;
}

int OnGrants(sd_bus_message* message, void* self, sd_bus_error*) {
  BusCalls& calls = *static_cast<BusCalls*>(self);
  const absl::StatusOr<bool> all = ReadBool(message);
  if (!all.ok()) return Refused(calls, message, all.status());
  v1::GrantsRequest request;
  uint64_t after = 0;
  sd_bus_message_read(message, "t", &after);
  request.set_after(after);
  calls.Begin(
      message, *all ? kGrants : nullptr,
      [&calls, request, all = *all](Session& session, BusCalls::Answer answer) {
        session.administrator &= all;
        Into(std::move(answer),
             FillGrants)(calls.service().Grants(session, request));
      });
  return 1;
}

int OnCheck(sd_bus_message* message, void* self, sd_bus_error*) {
  BusCalls& calls = *static_cast<BusCalls*>(self);
  const absl::StatusOr<std::string> program = ReadWord(message);
  if (!program.ok()) return Refused(calls, message, program.status());
  v1::DescribeRequest request;
  request.set_program(*program);
  calls.Begin(message, kRead,
              [&calls, request](Session& session, BusCalls::Answer answer) {
                if (absl::Status who = LookAtCaller(session, calls);
                    !who.ok()) {
                  answer(who);
                  return;
                }
                calls.service().Describe(session, request,
                                         Into(std::move(answer), FillCheck));
              });
  return 1;
}

int OnExplain(sd_bus_message* message, void* self, sd_bus_error*) {
  BusCalls& calls = *static_cast<BusCalls*>(self);
  const absl::StatusOr<v1::ExplainRequest> request = ReadExplain(message);
  if (!request.ok()) return Refused(calls, message, request.status());
  const bool others = request->has_pid() || request->has_subject();
  calls.Begin(message, others ? kRead : nullptr,
              [&calls, request = *request, others](Session& session,
                                                   BusCalls::Answer answer) {
                absl::Status who;
                if (!others) who = LookAtCaller(session, calls);
                if (!who.ok()) {
                  answer(who);
                  return;
                }
                calls.service().Explain(session, request,
                                        Into(std::move(answer), FillExplain));
              });
  return 1;
}

int OnRevoke(sd_bus_message* message, void* self, sd_bus_error*) {
  BusCalls& calls = *static_cast<BusCalls*>(self);
  const absl::StatusOr<v1::RevokeRequest> request = ReadRevoke(message);
  if (!request.ok()) return Refused(calls, message, request.status());
  calls.Begin(
      message, kRevoke,
      [&calls, request = *request](Session& session, BusCalls::Answer answer) {
        calls.service().Revoke(session, request,
                               Into(std::move(answer), FillRevoke));
      });
  return 1;
}

int OnReload(sd_bus_message* message, void* self, sd_bus_error*) {
  BusCalls& calls = *static_cast<BusCalls*>(self);
  const absl::StatusOr<bool> enforce = ReadBool(message);
  if (!enforce.ok()) return Refused(calls, message, enforce.status());
  v1::ReloadRequest request;
  request.set_enforce(*enforce);
  calls.Begin(message, kReload,
              [&calls, request](Session& session, BusCalls::Answer answer) {
                calls.service().Reload(session, request,
                                       Into(std::move(answer), FillReload));
              });
  return 1;
}

int OnStatus(sd_bus_message* message, void* self, sd_bus_error*) {
  BusCalls& calls = *static_cast<BusCalls*>(self);
  const absl::StatusOr<bool> all = ReadBool(message);
  if (!all.ok()) return Refused(calls, message, all.status());
  calls.Begin(message, *all ? kRead : nullptr,
              [&calls, all = *all](Session& session, BusCalls::Answer answer) {
                session.administrator &= all;
                Into(std::move(answer),
                     FillStatus)(calls.service().Status(session, {}));
              });
  return 1;
}

// Properties are everybody's, and answered at once: they say what anybody may
// know.
int GetVersion(sd_bus*, const char*, const char*, const char*,
               sd_bus_message* reply, void*, sd_bus_error*) {
  return sd_bus_message_append(reply, "s", BPFGRANT_VERSION);
}

template <uint32_t (v1::StatusReply::*kField)() const>
int GetCount(sd_bus*, const char*, const char*, const char*,
             sd_bus_message* reply, void* self, sd_bus_error*) {
  const auto status =
      static_cast<BusCalls*>(self)->service().Status(Session(), {});
  return status.ok() ? sd_bus_message_append(reply, "u", ((*status).*kField)())
                     : -EIO;
}

int GetLastReload(sd_bus*, const char*, const char*, const char*,
                  sd_bus_message* reply, void* self, sd_bus_error*) {
  const std::string& last =
      static_cast<BusCalls*>(self)->service().last_reload();
  return sd_bus_message_append(reply, "s", last == "ok" ? "ok" : "rejected");
}

// Unprivileged: sd-bus would otherwise wait for the bus to say whether the
// sender has CAP_SYS_ADMIN. Who may what is BusCalls' business.
constexpr uint64_t kAnybody = SD_BUS_VTABLE_UNPRIVILEGED;
constexpr uint64_t kEmits = SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE;

const sd_bus_vtable kVtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD_WITH_ARGS("List", SD_BUS_ARGS("b", all, "s", after),
                            SD_BUS_RESULT("a(sssbbs)", programs, "s", next),
                            OnList, kAnybody),
    SD_BUS_METHOD_WITH_ARGS("Grants", SD_BUS_ARGS("b", all, "t", after),
                            SD_BUS_RESULT("a(tsuusstbs)", grants, "t", next),
                            OnGrants, kAnybody),
    SD_BUS_METHOD_WITH_ARGS("Check", SD_BUS_ARGS("s", program),
                            SD_BUS_RESULT("b", available, "s", why_not),
                            OnCheck, kAnybody),
    SD_BUS_METHOD_WITH_ARGS(
        "Explain", SD_BUS_ARGS("s", program, "a{sv}", about),
        SD_BUS_RESULT("b", allowed, "s", rule, "s", sentence, "as", consulted),
        OnExplain, kAnybody),
    SD_BUS_METHOD_WITH_ARGS("Revoke", SD_BUS_ARGS("s", by, "s", value),
                            SD_BUS_RESULT("u", revoked, "b", running), OnRevoke,
                            kAnybody),
    SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_ARGS("b", enforce),
                            SD_BUS_RESULT("u", programs, "as", unavailable, "u",
                                          rules, "u", revoked),
                            OnReload, kAnybody),
    SD_BUS_METHOD_WITH_ARGS("Status", SD_BUS_ARGS("b", all),
                            SD_BUS_RESULT("a{sv}", status), OnStatus, kAnybody),
    SD_BUS_PROPERTY("Version", "s", GetVersion, 0,
                    SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("ProgramCount", "u", GetCount<&v1::StatusReply::programs>,
                    0, kEmits),
    SD_BUS_PROPERTY("UnavailableCount", "u",
                    GetCount<&v1::StatusReply::unavailable>, 0, kEmits),
    SD_BUS_PROPERTY("RuleCount", "u", GetCount<&v1::StatusReply::rules>, 0,
                    kEmits),
    SD_BUS_PROPERTY("LastReload", "s", GetLastReload, 0, kEmits),
    SD_BUS_PROPERTY("SessionCount", "u", GetCount<&v1::StatusReply::sessions>,
                    0, 0),
    SD_BUS_PROPERTY("GrantCount", "u", GetCount<&v1::StatusReply::grants>, 0,
                    0),
    SD_BUS_SIGNAL_WITH_ARGS("GrantBegan", SD_BUS_ARGS("t", grant), 0),
    SD_BUS_SIGNAL_WITH_ARGS("GrantEnded", SD_BUS_ARGS("t", grant, "s", reason),
                            0),
    SD_BUS_SIGNAL_WITH_ARGS("SignalsSkipped", SD_BUS_ARGS("t", count), 0),
    SD_BUS_VTABLE_END,
};

}  // namespace

int AddBusObject(sd_bus* bus, BusCalls& calls) {
  return sd_bus_add_object_vtable(bus, nullptr, kBusPath, kBusInterface,
                                  kVtable, &calls);
}

void EmitReloaded(sd_bus* bus) {
  sd_bus_emit_properties_changed(bus, kBusPath, kBusInterface, "ProgramCount",
                                 "UnavailableCount", "RuleCount", "LastReload",
                                 nullptr);
}

void EmitGrantBegan(sd_bus* bus, uint64_t grant) {
  sd_bus_emit_signal(bus, kBusPath, kBusInterface, "GrantBegan", "t", grant);
}

void EmitGrantEnded(sd_bus* bus, uint64_t grant, v1::Reason why) {
  sd_bus_emit_signal(bus, kBusPath, kBusInterface, "GrantEnded", "ts", grant,
                     ReasonName(why).c_str());
}

void EmitSkipped(sd_bus* bus, uint64_t count) {
  sd_bus_emit_signal(bus, kBusPath, kBusInterface, "SignalsSkipped", "t",
                     count);
}

}  // namespace bpfgrant::broker

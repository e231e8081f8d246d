// Connections and events in C, and what the daemon tells of programs.

#include <cstdlib>
#include <string>

#include "client/c_api.h"
#include "proto/refusal/refusal.h"

namespace bpfgrant {
namespace {

using std::chrono::milliseconds;

constexpr size_t kFirstConnectBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_connect_options, path);
constexpr size_t kFirstSessionBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_session, token);
constexpr size_t kFirstEventBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_event, message);
constexpr size_t kFirstProgramBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_program, description);
constexpr size_t kFirstVerdictBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_verdict, in_use);

int ReadOptions(const bpfgrant_connect_options* given,
                Connection::Options& options, bpfgrant_error* error) {
  if (given == nullptr) return 0;
  bpfgrant_connect_options copy = BPFGRANT_CONNECT_OPTIONS_INIT;
  if (const int wrong = CopyIn(given, kFirstConnectBytes, copy); wrong < 0) {
    FailInvalid("bpfgrant_connect_options: not of a known size", error);
    return wrong;
  }
  if (copy.timeout_ms > 0) options.timeout = milliseconds(copy.timeout_ms);
  if (copy.path != nullptr) options.path = copy.path;
  return 0;
}

bpfgrant_event EventInC(const v1::Event& event) {
  bpfgrant_event c = BPFGRANT_EVENT_INIT;
  c.type = static_cast<uint32_t>(event.type());
  c.grant = event.grant().grant();
  c.reason = event.reason();
  c.uid = event.grant().uid();
  c.at_unix_ms = event.at_unix_ms();
  CopyText(event.grant().program(), c.program, sizeof(c.program));
  CopyText(event.message(), c.message, sizeof(c.message));
  return c;
}

// Its pointers are `summary`'s.
bpfgrant_program ProgramInC(const v1::ProgramSummary& summary) {
  bpfgrant_program c = BPFGRANT_PROGRAM_INIT;
  c.available = summary.available();
  c.reason = summary.reason();
  c.allowed = summary.verdict().allowed();
  c.ready = summary.pool_ready();
  c.grants = summary.grants();
  c.name = summary.name().c_str();
  c.interface = summary.interface().c_str();
  c.description = summary.description().c_str();
  return c;
}

}  // namespace
}  // namespace bpfgrant

int bpfgrant_connect(const bpfgrant_connect_options* options,
                     bpfgrant_connection** connection,
                     bpfgrant_error* error) noexcept {
  *connection = nullptr;
  bpfgrant::Connection::Options read;
  if (const int wrong = bpfgrant::ReadOptions(options, read, error);
      wrong < 0) {
    return wrong;
  }
  return bpfgrant::Give(bpfgrant::Connection::Connect(std::move(read)),
                        connection, error);
}

int bpfgrant_connect_socket(int socket, const bpfgrant_connect_options* options,
                            bpfgrant_connection** connection,
                            bpfgrant_error* error) noexcept {
  *connection = nullptr;
  bpfgrant::UniqueFd owned(socket);
  bpfgrant::Connection::Options read;
  if (const int wrong = bpfgrant::ReadOptions(options, read, error);
      wrong < 0) {
    return wrong;
  }
  if (!owned.valid()) return bpfgrant::FailInvalid("no socket", error);
  return bpfgrant::Give(
      bpfgrant::Connection::FromSocket(std::move(owned), std::move(read)),
      connection, error);
}

void bpfgrant_connection_close(bpfgrant_connection* connection) noexcept {
  delete connection;
}

int bpfgrant_connection_fd(const bpfgrant_connection* connection) noexcept {
  return connection->connection.fd();
}

int bpfgrant_connection_session(const bpfgrant_connection* connection,
                                bpfgrant_session* session) noexcept {
  const bpfgrant::v1::HelloReply& hello = connection->connection.session();
  bpfgrant_session c = BPFGRANT_SESSION_INIT;
  c.uid = hello.uid();
  c.gid = hello.gid();
  c.pid = hello.pid();
  c.session = hello.session();
  c.administrator = hello.administrator();
  static_assert(sizeof(c.token) == 32);
  // The library has refused a token of another length.
  std::memcpy(c.token, hello.token().data(), sizeof(c.token));
  return bpfgrant::CopyOut(c, bpfgrant::kFirstSessionBytes, session);
}

int bpfgrant_connection_dispatch(bpfgrant_connection* connection,
                                 bpfgrant_error* error) noexcept {
  return bpfgrant::ResultOf(connection->connection.ProcessEvents(), error);
}

int bpfgrant_connection_next_event(bpfgrant_connection* connection,
                                   uint32_t timeout_ms, bpfgrant_event* event,
                                   bpfgrant_error* error) noexcept {
  // An event that cannot be told must not be lost.
  if (event->size < bpfgrant::kFirstEventBytes) {
    return bpfgrant::FailInvalid("bpfgrant_event: not of a known size", error);
  }
  const auto next =
      connection->connection.WaitEvent(bpfgrant::milliseconds(timeout_ms));
  if (!next.ok()) return bpfgrant::Fail(next.status(), error);
  return bpfgrant::CopyOut(bpfgrant::EventInC(*next),
                           bpfgrant::kFirstEventBytes, event);
}

int bpfgrant_connection_watch(bpfgrant_connection* connection,
                              bpfgrant_error* error) noexcept {
  return bpfgrant::ResultOf(connection->connection.Watch(), error);
}

int bpfgrant_list(bpfgrant_connection* connection,
                  bpfgrant_program_callback callback, void* context,
                  bpfgrant_error* error) noexcept {
  const auto reply = connection->connection.List();
  if (!reply.ok()) return bpfgrant::Fail(reply.status(), error);
  for (const auto& summary : reply->program()) {
    const bpfgrant_program program = bpfgrant::ProgramInC(summary);
    callback(context, &program);
  }
  return 0;
}

int bpfgrant_describe(bpfgrant_connection* connection, const char* program,
                      bpfgrant_description** description,
                      bpfgrant_error* error) noexcept {
  *description = nullptr;
  auto reply = connection->connection.Describe(bpfgrant::TextOf(program));
  if (!reply.ok()) return bpfgrant::Fail(reply.status(), error);
  *description = new bpfgrant_description{*std::move(reply), ""};
  for (const auto& variant : (*description)->reply.variant()) {
    if (variant.chosen()) (*description)->variant = variant.name();
  }
  return 0;
}

void bpfgrant_description_free(bpfgrant_description* description) noexcept {
  delete description;
}

int bpfgrant_description_program(const bpfgrant_description* description,
                                 bpfgrant_program* program) noexcept {
  return bpfgrant::CopyOut(bpfgrant::ProgramInC(description->reply.summary()),
                           bpfgrant::kFirstProgramBytes, program);
}

size_t bpfgrant_description_handle_count(
    const bpfgrant_description* description) noexcept {
  return static_cast<size_t>(description->reply.handle_size());
}

int bpfgrant_description_handle_at(const bpfgrant_description* description,
                                   size_t index,
                                   bpfgrant_handle* handle) noexcept {
  if (index >= bpfgrant_description_handle_count(description)) return -ENOENT;
  return bpfgrant::CopyOut(
      bpfgrant::HandleInC(description->reply.handle(static_cast<int>(index)),
                          -1),
      bpfgrant::kFirstHandleBytes, handle);
}

const char* bpfgrant_description_text(
    const bpfgrant_description* description,
    bpfgrant_description_text_kind which) noexcept {
  switch (which) {
    case BPFGRANT_TEXT_INTERFACE_HASH:
      return description->reply.interface_hash().c_str();
    case BPFGRANT_TEXT_HEADER:
      return description->reply.header().c_str();
    case BPFGRANT_TEXT_REFUSAL:
      return description->reply.refusal().c_str();
    case BPFGRANT_TEXT_IRREVOCABLE:
      return description->reply.irrevocable().c_str();
    case BPFGRANT_TEXT_VARIANT:
      return description->variant.c_str();
  }
  return "";
}

int bpfgrant_explain(bpfgrant_connection* connection, const char* program,
                     bpfgrant_verdict* verdict, char** sentence,
                     bpfgrant_error* error) noexcept {
  if (sentence != nullptr) *sentence = nullptr;
  bpfgrant::v1::ExplainRequest request;
  request.set_program(bpfgrant::TextOf(program));
  const auto reply = connection->connection.Explain(request);
  if (!reply.ok()) return bpfgrant::Fail(reply.status(), error);
  bpfgrant_verdict c = BPFGRANT_VERDICT_INIT;
  c.allowed = reply->verdict().allowed();
  c.reason = reply->verdict().reason();
  c.available = reply->available();
  c.quota = reply->verdict().quota();
  c.in_use = reply->in_use();
  if (const int wrong =
          bpfgrant::CopyOut(c, bpfgrant::kFirstVerdictBytes, verdict);
      wrong < 0) {
    return bpfgrant::FailInvalid("bpfgrant_verdict: not of a known size",
                                 error);
  }
  if (sentence == nullptr) return 0;
  *sentence = strdup(reply->sentence().c_str());
  return *sentence == nullptr
             ? bpfgrant::Fail(absl::ResourceExhaustedError("no memory"), error)
             : 0;
}

// Acquiring, attaching, and grants in C.

#include <chrono>
#include <string>
#include <vector>

#include "client/bpfgrant/attach.h"
#include "client/bpfgrant/parameter.h"
#include "client/c_api.h"

namespace bpfgrant {
namespace {

constexpr size_t kFirstAcquireBytes =
    BPFGRANT_FIRST_BYTES(bpfgrant_acquire_options, ring);

int ReadParameter(const bpfgrant_parameter& given,
                  Connection::AcquireOptions& options, bpfgrant_error* error) {
  const std::string name = TextOf(given.name);
  const auto bytes = [&] {
    return std::string(static_cast<const char*>(given.value.bytes),
                       given.length);
  };
  switch (given.type) {
    case BPFGRANT_PARAMETER_INTEGER:
      options.parameters.push_back(IntegerParameter(name, given.value.integer));
      return 0;
    case BPFGRANT_PARAMETER_CHOICE:
      options.parameters.push_back(
          ChoiceParameter(name, TextOf(given.value.choice)));
      return 0;
    case BPFGRANT_PARAMETER_BYTES:
      options.parameters.push_back(BytesParameter(name, bytes()));
      return 0;
    case BPFGRANT_PARAMETER_PREFIX:
      options.parameters.push_back(PrefixParameter(name, bytes(), given.bits));
      return 0;
    case BPFGRANT_PARAMETER_FILE:
      options.files.emplace_back(name, given.fd);
      return 0;
    default:
      return FailInvalid("bpfgrant_parameter: there is no such type", error);
  }
}

int ReadOptions(const bpfgrant_acquire_options* given,
                Connection::AcquireOptions& options, bpfgrant_error* error) {
  bpfgrant_acquire_options copy = BPFGRANT_ACQUIRE_OPTIONS_INIT;
  if (const int wrong = CopyIn(given, kFirstAcquireBytes, copy); wrong < 0) {
    FailInvalid("bpfgrant_acquire_options: not of a known size", error);
    return wrong;
  }
  if (copy.delivery > BPFGRANT_DELIVERY_PROCESS) {
    return FailInvalid("bpfgrant_delivery: there is no such delivery", error);
  }
  options.program = TextOf(copy.program);
  options.interface = TextOf(copy.interface);
  options.interface_hash = TextOf(copy.interface_hash);
  options.delivery = static_cast<v1::Delivery>(copy.delivery);
  options.target = copy.target;
  if (copy.ring >= 0) options.ring = copy.ring;
  for (size_t i = 0; copy.handles != nullptr && i < copy.handle_count; ++i) {
    options.handles.push_back(TextOf(copy.handles[i]));
  }
  for (size_t i = 0; i < copy.parameter_count; ++i) {
    if (const int wrong = ReadParameter(copy.parameters[i], options, error);
        wrong < 0) {
      return wrong;
    }
  }
  return 0;
}

}  // namespace

bpfgrant_handle HandleInC(const v1::Handle& handle, int fd) {
  bpfgrant_handle c = BPFGRANT_HANDLE_INIT;
  c.kind = static_cast<uint32_t>(handle.kind());
  c.rights = static_cast<uint32_t>(handle.rights());
  c.fd = fd;
  c.key_size = handle.key_size();
  c.value_size = handle.value_size();
  c.max_entries = handle.max_entries();
  c.mappable = handle.mappable();
  c.name = handle.name().c_str();
  c.swappable = handle.swappable().c_str();
  return c;
}

}  // namespace bpfgrant

int bpfgrant_acquire(bpfgrant_connection* connection,
                     const bpfgrant_acquire_options* options,
                     bpfgrant_grant** grant, bpfgrant_error* error) noexcept {
  *grant = nullptr;
  bpfgrant::Connection::AcquireOptions read;
  if (const int wrong = bpfgrant::ReadOptions(options, read, error);
      wrong < 0) {
    return wrong;
  }
  return bpfgrant::Give(connection->connection.Acquire(read), grant, error);
}

int bpfgrant_claim(bpfgrant_connection* connection, uint64_t id, int target,
                   int ring, bpfgrant_grant** grant,
                   bpfgrant_error* error) noexcept {
  std::optional<int> number;
  if (ring >= 0) number = ring;
  return bpfgrant::Give(connection->connection.Claim(id, target, number), grant,
                        error);
}

int bpfgrant_probe(bpfgrant_connection* connection,
                   const bpfgrant_acquire_options* options,
                   bpfgrant_description** description,
                   bpfgrant_error* error) noexcept {
  if (description != nullptr) *description = nullptr;
  bpfgrant::Connection::AcquireOptions read;
  if (const int wrong = bpfgrant::ReadOptions(options, read, error);
      wrong < 0) {
    return wrong;
  }
  auto offer = connection->connection.Probe(read);
  if (!offer.ok()) return bpfgrant::Fail(offer.status(), error);
  if (description != nullptr) {
    *description = new bpfgrant_description{std::move(offer->description),
                                            std::move(offer->variant)};
  }
  return 0;
}

int bpfgrant_attach_socket(bpfgrant_connection* connection,
                           const bpfgrant_acquire_options* options, int socket,
                           bpfgrant_hook hook, bpfgrant_grant** grant,
                           bpfgrant_error* error) noexcept {
  *grant = nullptr;
  bpfgrant::Connection::AcquireOptions read;
  if (const int wrong = bpfgrant::ReadOptions(options, read, error);
      wrong < 0) {
    return wrong;
  }
  if (hook != BPFGRANT_HOOK_FILTER && hook != BPFGRANT_HOOK_REUSEPORT) {
    return bpfgrant::FailInvalid("bpfgrant_hook: there is no such hook", error);
  }
  return bpfgrant::Give(
      bpfgrant::AttachTo(connection->connection, std::move(read), socket,
                         hook == BPFGRANT_HOOK_FILTER
                             ? bpfgrant::SocketHook::kFilter
                             : bpfgrant::SocketHook::kReuseport),
      grant, error);
}

int bpfgrant_attach_tun(bpfgrant_connection* connection,
                        const bpfgrant_acquire_options* options, int queue,
                        bpfgrant_grant** grant,
                        bpfgrant_error* error) noexcept {
  *grant = nullptr;
  bpfgrant::Connection::AcquireOptions read;
  if (const int wrong = bpfgrant::ReadOptions(options, read, error);
      wrong < 0) {
    return wrong;
  }
  return bpfgrant::Give(
      bpfgrant::AttachTo(connection->connection, std::move(read), queue,
                         bpfgrant::TunHook::kSteering),
      grant, error);
}

uint64_t bpfgrant_grant_id(const bpfgrant_grant* grant) noexcept {
  return grant->grant->id();
}

bpfgrant_delivery bpfgrant_grant_delivery(
    const bpfgrant_grant* grant) noexcept {
  return static_cast<bpfgrant_delivery>(grant->grant->delivery());
}

const char* bpfgrant_grant_interface_hash(
    const bpfgrant_grant* grant) noexcept {
  return grant->grant->interface_hash().c_str();
}

int bpfgrant_grant_program_fd(const bpfgrant_grant* grant) noexcept {
  return grant->grant->program_fd();
}

int bpfgrant_grant_ended(const bpfgrant_grant* grant) noexcept {
  return grant->grant->ended();
}

int32_t bpfgrant_grant_end_reason(const bpfgrant_grant* grant) noexcept {
  return grant->grant->end_reason();
}

size_t bpfgrant_grant_handle_count(const bpfgrant_grant* grant) noexcept {
  return grant->grant->handles().size();
}

int bpfgrant_grant_handle_at(const bpfgrant_grant* grant, size_t index,
                             bpfgrant_handle* handle) noexcept {
  if (index >= grant->grant->handles().size()) return -ENOENT;
  const bpfgrant::Grant::Handle& found = grant->grant->handles()[index];
  return bpfgrant::CopyOut(
      bpfgrant::HandleInC(found.description, found.fd.get()),
      bpfgrant::kFirstHandleBytes, handle);
}

int bpfgrant_grant_find(const bpfgrant_grant* grant, const char* name,
                        bpfgrant_handle* handle) noexcept {
  const auto found = grant->grant->Find(bpfgrant::TextOf(name));
  if (!found.ok()) return -ENOENT;
  return bpfgrant::CopyOut(
      bpfgrant::HandleInC((*found)->description, (*found)->fd.get()),
      bpfgrant::kFirstHandleBytes, handle);
}

int bpfgrant_grant_release(bpfgrant_grant* grant,
                           bpfgrant_error* error) noexcept {
  if (!grant->own) return bpfgrant::FailInvalid("it is a loop's", error);
  return bpfgrant::ResultOf(grant->grant->Release(), error);
}

int bpfgrant_grant_release_wait(bpfgrant_grant* grant, uint32_t patience_ms,
                                bpfgrant_error* error) noexcept {
  if (!grant->own) return bpfgrant::FailInvalid("it is a loop's", error);
  return bpfgrant::ResultOf(
      grant->grant->ReleaseAndWait(std::chrono::milliseconds(patience_ms)),
      error);
}

void bpfgrant_grant_free(bpfgrant_grant* grant) noexcept {
  // A loop's goes with the loop.
  if (grant != nullptr && grant->own) delete grant;
}

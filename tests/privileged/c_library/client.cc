// A client without privilege that has the C library only.
//
//   c_library_client SOCKET grants|mistakes|memory|rotate|loops

#include "tests/privileged/c_library/client.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "bpfgrant/programs/flow_filter.h"
#include "bpfgrant/programs/packet_sampler.h"
#include "tests/harness/probe_privilege.h"

namespace {

bpfgrant_connection* Connect(const char* path) {
  bpfgrant_connect_options options = BPFGRANT_CONNECT_OPTIONS_INIT;
  options.path = path;
  bpfgrant_connection* connection = nullptr;
  EXPECT_SAME(bpfgrant_connect(&options, &connection, &error), 0);
  return connection;
}

bpfgrant_acquire_options Sampler() {
  bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
  options.delivery = BPFGRANT_DELIVERY_PROGRAM;
  options.program = "packet_sampler";
  options.interface = PACKET_SAMPLER_INTERFACE;
  options.interface_hash = PACKET_SAMPLER_INTERFACE_HASH;
  return options;
}

bpfgrant_grant* Acquire(bpfgrant_connection* connection,
                        const bpfgrant_acquire_options& options) {
  bpfgrant_grant* grant = nullptr;
  EXPECT_SAME(bpfgrant_acquire(connection, &options, &grant, &error), 0);
  return grant;
}

// And expects that it is refused so.
void Refused(bpfgrant_connection* connection,
             const bpfgrant_acquire_options& options, int number,
             const char* reason) {
  bpfgrant_grant* grant = nullptr;
  EXPECT_SAME(bpfgrant_acquire(connection, &options, &grant, &error), -number);
  EXPECT_SAME(grant == nullptr, true);
  EXPECT_SAME(std::strcmp(bpfgrant_reason_name(error.reason), reason), 0);
  EXPECT_SAME(error.message[0] != 0, true);
}

// A UDP socket that is connected to itself.
int OpenSocket() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  EXPECT_SAME(bind(fd, any, length), 0);
  EXPECT_SAME(getsockname(fd, any, &length), 0);
  EXPECT_SAME(connect(fd, any, length), 0);
  return fd;
}

struct Found {
  const char* name;
  int count;
  bool available;
};
void Look(void* context, const bpfgrant_program* program) {
  auto* const found = static_cast<Found*>(context);
  if (std::strcmp(program->name, found->name) != 0) return;
  ++found->count;
  found->available = program->available != 0 && program->allowed != 0;
}

void TestQuestions(bpfgrant_connection* connection) {
  Found sampler = {"packet_sampler", 0, false};
  EXPECT_SAME(bpfgrant_list(connection, Look, &sampler, &error), 0);
  EXPECT_SAME(sampler.count, 1);
  EXPECT_SAME(sampler.available, true);

  bpfgrant_description* description = nullptr;
  const bpfgrant_acquire_options options = Sampler();
  EXPECT_SAME(bpfgrant_probe(connection, &options, &description, &error), 0);
  EXPECT_SAME(bpfgrant_probe(connection, &options, nullptr, &error), 0);
  EXPECT_SAME(bpfgrant_description_handle_count(description), 3);
  bpfgrant_handle handle = BPFGRANT_HANDLE_INIT;
  EXPECT_SAME(bpfgrant_description_handle_at(description, 0, &handle), 0);
  EXPECT_SAME(handle.fd, -1);
  EXPECT_SAME(bpfgrant_description_handle_at(description, 3, &handle), -ENOENT);
  const std::string header =
      bpfgrant_description_text(description, BPFGRANT_TEXT_HEADER);
  EXPECT_SAME(header.find("struct packet_sample {") != std::string::npos, true);
  bpfgrant_program program = BPFGRANT_PROGRAM_INIT;
  EXPECT_SAME(bpfgrant_description_program(description, &program), 0);
  EXPECT_SAME(std::strcmp(program.interface, "packet_sampler/1"), 0);
  bpfgrant_description_free(description);
  EXPECT_SAME(bpfgrant_describe(connection, "nothing", &description, &error),
              -ENOENT);

  bpfgrant_verdict verdict = BPFGRANT_VERDICT_INIT;
  char* sentence = nullptr;
  EXPECT_SAME(bpfgrant_explain(connection, "packet_sampler", &verdict,
                               &sentence, &error),
              0);
  EXPECT_SAME(verdict.allowed, 1);
  EXPECT_SAME(verdict.available, 1);
  EXPECT_SAME(verdict.quota, 1);
  EXPECT_SAME(sentence != nullptr && sentence[0] != 0, true);
  std::free(sentence);
  EXPECT_SAME(bpfgrant_explain(connection, "reuseport_steer", &verdict, nullptr,
                               &error),
              0);
  EXPECT_SAME(verdict.allowed, 0);
}

void TestGrants(bpfgrant_connection* connection) {
  TestQuestions(connection);
  const char* const names[] = {"config", "samples"};
  bpfgrant_parameter most = {};
  most.name = PACKET_SAMPLER_PARAMETER_MOST_BYTES;
  most.type = BPFGRANT_PARAMETER_INTEGER;
  most.value.integer = 16;
  bpfgrant_acquire_options options = Sampler();
  options.handles = names;
  options.handle_count = 2;
  options.parameters = &most;
  options.parameter_count = 1;
  bpfgrant_grant* grant = Acquire(connection, options);
  EXPECT_SAME(bpfgrant_grant_delivery(grant), BPFGRANT_DELIVERY_PROGRAM);
  EXPECT_SAME(bpfgrant_grant_program_fd(grant) >= 0, true);
  EXPECT_SAME(bpfgrant_grant_handle_count(grant), 3);
  bpfgrant_handle handle = BPFGRANT_HANDLE_INIT;
  EXPECT_SAME(bpfgrant_grant_find(grant, "config", &handle), 0);
  EXPECT_SAME(handle.kind, BPFGRANT_HANDLE_ARRAY);
  EXPECT_SAME(handle.rights, BPFGRANT_RIGHTS_READ_WRITE);
  EXPECT_SAME(handle.value_size, sizeof(packet_sampler_config));
  EXPECT_SAME(handle.mappable, 1);
  EXPECT_SAME(handle.swappable[0], 0);
  EXPECT_SAME(bpfgrant_grant_find(grant, "counters", &handle), -ENOENT);

  // What was chosen holds: 16 bytes of a packet at most.
  const int fd = OpenSocket();
  const int program = bpfgrant_grant_program_fd(grant);
  EXPECT_SAME(setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program, 4), 0);
  char text[100] = "a datagram";
  EXPECT_SAME(send(fd, text, sizeof(text), 0), sizeof(text));
  bpfgrant_ring_buffer* samples = nullptr;
  EXPECT_SAME(bpfgrant_ring_buffer_open(grant, "samples", &samples, &error), 0);
  packet_sample sample{};
  const auto keep = [](void* context, const void* bytes, size_t length) {
    EXPECT_SAME(length, sizeof(packet_sample));
    std::memcpy(context, bytes, length);
  };
  EXPECT_SAME(bpfgrant_ring_buffer_consume(samples, keep, &sample, 0, &error),
              1);
  EXPECT_SAME(sample.captured, 16);
  EXPECT_SAME(sample.length, 8 + sizeof(text));
  bpfgrant_ring_buffer_free(samples);
  close(fd);

  // A mapping that is kept keeps it, and the quota with it.
  bpfgrant_array* config = nullptr;
  EXPECT_SAME(bpfgrant_array_map(grant, "config", &config, &error), 0);
  EXPECT_SAME(bpfgrant_array_value_size(config), sizeof(packet_sampler_config));
  EXPECT_SAME(bpfgrant_array_at(config, 0) != nullptr, true);
  EXPECT_SAME(bpfgrant_array_at(config, 1) == nullptr, true);
  const int waited = bpfgrant_grant_release_wait(grant, 50, &error);
  if (waited != -EOPNOTSUPP) {
    EXPECT_SAME(waited, -ETIMEDOUT);
    EXPECT_SAME(std::strcmp(bpfgrant_reason_name(error.reason), "still-held"),
                0);
  }
  bpfgrant_array_free(config);
  if (waited != -EOPNOTSUPP) {
    EXPECT_SAME(bpfgrant_grant_release_wait(grant, 30000, &error), 0);
    EXPECT_SAME(bpfgrant_grant_release(grant, &error), -ENOENT);
    EXPECT_SAME(bpfgrant_grant_handle_count(grant), 0);
    EXPECT_SAME(bpfgrant_grant_ended(grant), 1);
  }
  bpfgrant_grant_free(grant);
}

void TestMistakes(bpfgrant_connection* connection) {
  bpfgrant_acquire_options options = Sampler();
  options.program = "reuseport_steer";
  Refused(connection, options, EACCES, "denied-by-rule");
  options.program = "nothing";
  Refused(connection, options, EACCES, "denied-by-default");
  options.program = "missing";
  Refused(connection, options, ENOENT, "unknown-program");
  options.program = nullptr;
  Refused(connection, options, EINVAL, "invalid-argument");
  options = Sampler();
  options.interface = "packet_sampler/2";
  Refused(connection, options, EPERM, "interface-mismatch");
  options = Sampler();
  options.delivery = BPFGRANT_DELIVERY_ATTACH;
  Refused(connection, options, EINVAL, "socket-needed");
  options.delivery = BPFGRANT_DELIVERY_PROCESS;
  Refused(connection, options, EPERM, "delivery-not-allowed");
  options = Sampler();
  const char* const names[] = {"elsewhere"};
  options.handles = names;
  options.handle_count = 1;
  Refused(connection, options, ENOENT, "unknown-handle");
  options = Sampler();
  bpfgrant_parameter most = {};
  most.name = "most_bytes";
  most.type = BPFGRANT_PARAMETER_INTEGER;
  most.value.integer = 65;
  options.parameters = &most;
  options.parameter_count = 1;
  Refused(connection, options, ERANGE, "parameter-range");
  most.name = nullptr;
  Refused(connection, options, EINVAL, "parameter-unknown");

  bpfgrant_grant* grant = Acquire(connection, Sampler());
  Refused(connection, Sampler(), EDQUOT, "quota");
  bpfgrant_grant* other = nullptr;
  EXPECT_SAME(bpfgrant_claim(connection, bpfgrant_grant_id(grant), -1, -1,
                             &other, &error),
              -EPERM);
  EXPECT_SAME(bpfgrant_claim(connection, 1ULL << 60, -1, -1, &other, &error),
              -ENOENT);
  EXPECT_SAME(other == nullptr, true);
  bpfgrant_ring_buffer* samples = nullptr;
  EXPECT_SAME(bpfgrant_ring_buffer_open(grant, "config", &samples, &error),
              -EINVAL);
  bpfgrant_user_ring_buffer* commands = nullptr;
  EXPECT_SAME(
      bpfgrant_user_ring_buffer_open(grant, "samples", &commands, &error),
      -EINVAL);
  bpfgrant_array* counters = nullptr;
  EXPECT_SAME(bpfgrant_array_map(grant, "counters", &counters, &error),
              -EINVAL);
  bpfgrant_swappable_map* map = nullptr;
  EXPECT_SAME(bpfgrant_swappable_map_open(grant, "config", &map, &error),
              -ENOENT);
  EXPECT_SAME(bpfgrant_rotate(grant, nullptr, 0, 0, &error), -EINVAL);
  // An fd of nobody's, and of no socket's.
  bpfgrant_acquire_options filter = Sampler();
  filter.program = "flow_filter";
  filter.interface = FLOW_FILTER_INTERFACE;
  filter.interface_hash = nullptr;
  EXPECT_SAME(bpfgrant_attach_socket(connection, &filter, -1,
                                     BPFGRANT_HOOK_FILTER, &other, &error) < 0,
              true);
  EXPECT_SAME(bpfgrant_attach_tun(connection, &filter, STDIN_FILENO, &other,
                                  &error) < 0,
              true);
  EXPECT_SAME(other == nullptr, true);
  // Too late.
  bpfgrant_connection_close(connection);
  EXPECT_SAME(bpfgrant_grant_ended(grant), 1);
  EXPECT_SAME(
      std::strcmp(bpfgrant_reason_name(bpfgrant_grant_end_reason(grant)),
                  "session-ended"),
      0);
  EXPECT_SAME(bpfgrant_rotate(grant, nullptr, 0, 100, &error), -ENOTCONN);
  bpfgrant_grant_free(grant);
}

void TestMemory(bpfgrant_connection* connection) {
  bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
  options.program = "flow_filter";
  options.interface = FLOW_FILTER_INTERFACE;
  options.interface_hash = FLOW_FILTER_INTERFACE_HASH;
  bpfgrant_grant* grant = nullptr;
  const int fd = OpenSocket();
  EXPECT_SAME(bpfgrant_attach_socket(connection, &options, fd,
                                     BPFGRANT_HOOK_FILTER, &grant, &error),
              0);
  bpfgrant_user_ring_buffer* commands = nullptr;
  EXPECT_SAME(
      bpfgrant_user_ring_buffer_open(grant, "commands", &commands, &error), 0);
  void* sample = nullptr;
  EXPECT_SAME(bpfgrant_user_ring_buffer_reserve_wait(
                  commands, sizeof(flow_filter_command), 0, &sample, &error),
              0);
  flow_filter_command command{};
  command.verb = FLOW_FILTER_ADD;
  command.list = FLOW_FILTER_BLOCK;
  command.family = 4;
  command.prefix_length = 8;
  command.tag = 5;
  command.address[0] = 127;
  std::memcpy(sample, &command, sizeof(command));
  bpfgrant_user_ring_buffer_submit(commands, sample, sizeof(command));
  EXPECT_SAME(bpfgrant_user_ring_buffer_pending(commands), 8 + sizeof(command));
  // A packet has it obeyed, and is blocked by it.
  EXPECT_SAME(send(fd, "x", 1, 0), 1);
  EXPECT_SAME(bpfgrant_user_ring_buffer_pending(commands), 0);
  char byte;
  EXPECT_SAME(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
  bpfgrant_user_ring_buffer_free(commands);
  bpfgrant_grant_free(grant);
  close(fd);
}

void TestRotate(bpfgrant_connection* connection) {
  bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
  options.program = "turned";
  options.interface = "turned/1";
  bpfgrant_grant* grant = Acquire(connection, options);
  bpfgrant_swappable_map* maps[2] = {};
  EXPECT_SAME(bpfgrant_swappable_map_open(grant, "first", &maps[0], &error), 0);
  EXPECT_SAME(bpfgrant_swappable_map_open(grant, "second", &maps[1], &error),
              0);
  const int current = bpfgrant_swappable_map_current(maps[0]);
  const int spare = bpfgrant_swappable_map_spare(maps[0]);
  EXPECT_SAME(current != spare, true);
  EXPECT_SAME(bpfgrant_rotate(grant, maps, 2, 30000, &error), 0);
  EXPECT_SAME(bpfgrant_swappable_map_current(maps[0]), spare);
  EXPECT_SAME(bpfgrant_swappable_map_spare(maps[0]), current);
  bpfgrant_swappable_map* const twice[2] = {maps[0], maps[0]};
  EXPECT_SAME(bpfgrant_rotate(grant, twice, 2, 1000, &error), -ENOENT);
  EXPECT_SAME(bpfgrant_swappable_map_current(maps[0]), spare);
  EXPECT_SAME(bpfgrant_rotate(grant, maps, 1, 60001, &error), -EINVAL);
  EXPECT_SAME(bpfgrant_rotate(grant, nullptr, 0, 30000, &error), 0);
  for (bpfgrant_swappable_map* map : maps) bpfgrant_swappable_map_free(map);
  EXPECT_SAME(bpfgrant_grant_release(grant, &error), 0);
  EXPECT_SAME(bpfgrant_rotate(grant, nullptr, 0, 1000, &error), -ENOENT);
  bpfgrant_grant_free(grant);
}

}  // namespace

int main(int argc, char** argv) {
  bpfgrant::test::AssertUnprivileged();
  if (argc != 3) return 2;
  const std::string what = argv[2];
  bpfgrant_connection* const connection = Connect(argv[1]);
  if (what == "mistakes") {
    TestMistakes(connection);
    std::printf("well\n");
    return 0;
  }
  if (what == "grants") {
    TestGrants(connection);
  } else if (what == "memory") {
    TestMemory(connection);
  } else if (what == "rotate") {
    TestRotate(connection);
  } else if (what == "loops") {
    RunLoops(connection);
  } else {
    return 2;
  }
  bpfgrant_connection_close(connection);
  std::printf("well\n");
  return 0;
}

/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * sampler [SOCKET]: a process without any privilege that sees the packets of
 * its own UDP socket through an approved BPF program.
 *
 * It sends datagrams to itself, compares their samples with what was sent, and
 * then waits: for the end of the grant, or of standard input, at which it gives
 * the grant back.
 */
#include <arpa/inet.h>
#include <bpfgrant/bpfgrant.h>
#include <bpfgrant/programs/packet_sampler.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define DATAGRAMS 64
/* A socket filter on a UDP socket sees the UDP header first. */
#define UDP_HEADER 8

struct samples {
  uint32_t seen;
  uint32_t wrong;
};

static int fail(const char* what, const struct bpfgrant_error* error) {
  const char* reason = bpfgrant_reason_name(error->reason);

  fprintf(stderr, "sampler: %s: %s (%s)\n", what, error->message,
          reason ? reason : "no reason");
  return 1;
}

/* A socket that is connected to itself. */
static int open_socket(void) {
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof(address);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

  if (fd < 0 || bind(fd, (struct sockaddr*)&address, sizeof(address)) < 0 ||
      getsockname(fd, (struct sockaddr*)&address, &length) < 0 ||
      connect(fd, (struct sockaddr*)&address, length) < 0) {
    perror("sampler: socket");
    return -1;
  }
  return fd;
}

static void take_sample(void* context, const void* bytes, size_t length) {
  struct samples* samples = context;
  struct packet_sample sample;
  uint32_t number;

  memset(&sample, 0, sizeof(sample));
  memcpy(&sample, bytes, length < sizeof(sample) ? length : sizeof(sample));
  memcpy(&number, sample.bytes + UDP_HEADER, sizeof(number));
  if (sample.captured < UDP_HEADER + sizeof(number) || number != samples->seen)
    samples->wrong++;
  samples->seen++;
}

/* Sends and receives; returns how many arrived. */
static uint32_t exchange(int fd) {
  uint32_t number, got, received = 0;

  for (number = 0; number < DATAGRAMS; number++)
    if (send(fd, &number, sizeof(number), 0) < 0) return received;
  while (received < DATAGRAMS) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    if (poll(&wait, 1, 5000) <= 0 || recv(fd, &got, sizeof(got), 0) < 0) break;
    received++;
  }
  return received;
}

/* Until the grant ends, or standard input does. */
static int wait_for_end(bpfgrant_connection* connection, bpfgrant_grant* grant,
                        struct bpfgrant_error* error) {
  while (!bpfgrant_grant_ended(grant)) {
    struct pollfd wait[2] = {
        {.fd = bpfgrant_connection_fd(connection), .events = POLLIN},
        {.fd = STDIN_FILENO, .events = POLLIN}};

    if (poll(wait, 2, -1) < 0) continue;
    if (wait[1].revents) {
      if (bpfgrant_grant_release(grant, error) < 0)
        return fail("release", error);
      printf("released\n");
      return 0;
    }
    if (bpfgrant_connection_dispatch(connection, error) < 0 &&
        !bpfgrant_grant_ended(grant))
      return fail("dispatch", error);
  }
  printf("ended: %s\n", bpfgrant_reason_name(bpfgrant_grant_end_reason(grant)));
  return 0;
}

int main(int argc, char** argv) {
  struct bpfgrant_error error = BPFGRANT_ERROR_INIT;
  struct bpfgrant_connect_options where = BPFGRANT_CONNECT_OPTIONS_INIT;
  struct bpfgrant_acquire_options wanted = BPFGRANT_ACQUIRE_OPTIONS_INIT;
  struct samples samples = {0, 0};
  bpfgrant_connection* connection;
  bpfgrant_grant* grant;
  bpfgrant_ring_buffer* ring_buffer;
  uint32_t received;
  int result = 1;
  int fd = open_socket();

  if (fd < 0) return 1;
  if (argc > 1) where.path = argv[1];
  if (bpfgrant_connect(&where, &connection, &error) < 0)
    return fail("connect", &error);

  wanted.program = "packet_sampler";
  wanted.interface = PACKET_SAMPLER_INTERFACE;
  wanted.interface_hash = PACKET_SAMPLER_INTERFACE_HASH;
  if (bpfgrant_attach_socket(connection, &wanted, fd, BPFGRANT_HOOK_FILTER,
                             &grant, &error) < 0) {
    result = fail("attach", &error);
    goto close;
  }
  if (bpfgrant_ring_buffer_open(grant, "samples", &ring_buffer, &error) < 0) {
    result = fail("samples", &error);
    goto release;
  }
  received = exchange(fd);
  if (bpfgrant_ring_buffer_consume(ring_buffer, take_sample, &samples, 0,
                                   &error) < 0) {
    result = fail("consume", &error);
    goto unmap;
  }
  printf("sent %d, received %u, sampled %u, wrong %u\n", DATAGRAMS, received,
         samples.seen, samples.wrong);
  fflush(stdout);
  if (received == DATAGRAMS && samples.seen == DATAGRAMS && samples.wrong == 0)
    result = wait_for_end(connection, grant, &error);

unmap:
  bpfgrant_ring_buffer_free(ring_buffer);
release:
  bpfgrant_grant_free(grant);
close:
  bpfgrant_connection_close(connection);
  close(fd);
  return result;
}

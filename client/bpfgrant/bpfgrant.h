/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client library in C: ask bpfgrantd for programs, use them, give them
 * back. Of libbpfgrant.so.1, whose ABI is stable: what is here stays as it is,
 * and what is added gets a new symbol version. It must not need anything but
 * libc's headers. A page of section 3 for each function; bpfgrant(3) begins. One
 * file, as those who include it want it; its parts are in the order of use.
 *
 *   struct bpfgrant_error error = BPFGRANT_ERROR_INIT;
 *   struct bpfgrant_acquire_options options = BPFGRANT_ACQUIRE_OPTIONS_INIT;
 *   bpfgrant_connection *connection;
 *   bpfgrant_grant *grant;
 *   bpfgrant_ring_buffer *samples;
 *
 *   options.program = "packet_sampler";
 *   options.interface = PACKET_SAMPLER_INTERFACE;
 *   if (bpfgrant_connect(NULL, &connection, &error) < 0 ||
 *       bpfgrant_attach_socket(connection, &options, my_socket,
 *                              BPFGRANT_HOOK_FILTER, &grant, &error) < 0 ||
 *       bpfgrant_ring_buffer_open(grant, "samples", &samples, &error) < 0)
 *     fprintf(stderr, "%s\n", error.message);
 *
 * Results: functions that can fail return 0 or more, or -errno (the same for
 * the same reason, always; bpfgrant_error(3) has the table), and then leave
 * what they would have given as NULL. Where there is more to say, the last
 * argument is a struct bpfgrant_error for it, or NULL. There is no global
 * state, and errno means nothing afterwards. Without memory for a few bytes the
 * library ends the process.
 *
 * Threads: one at a time uses a connection and the grants of it. Everything
 * that was mapped (ring buffers, arrays), and each loop, may have a thread of
 * its own. A child after fork(2) has to connect again: -EPERM.
 *
 * Pointers: what is given is the caller's, to be freed by the function named
 * so; freeing NULL does nothing. What a const pointer or a callback shows
 * remains the library's, for as long as is said. fds that are passed in remain
 * the caller's; fds that are shown remain the library's and are close-on-exec.
 *
 * Structures: those with `size` can grow; it is set to their sizeof by the
 * caller (BPFGRANT_..._INIT does), and the library neither reads nor writes
 * beyond it. -EINVAL if it is less than it was in the first release; -E2BIG if
 * what an older library does not know is not 0.
 *
 * A process has this library or the one in C++ (client/bpfgrant/connection.h),
 * not both: protobuf knows each message once.
 */
#ifndef BPFGRANT_BPFGRANT_H_
#define BPFGRANT_BPFGRANT_H_

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#define BPFGRANT_NOEXCEPT noexcept
#else
#define BPFGRANT_NOEXCEPT
#endif

typedef struct bpfgrant_connection bpfgrant_connection;
typedef struct bpfgrant_grant bpfgrant_grant;
typedef struct bpfgrant_description bpfgrant_description;
typedef struct bpfgrant_ring_buffer bpfgrant_ring_buffer;
typedef struct bpfgrant_user_ring_buffer bpfgrant_user_ring_buffer;
typedef struct bpfgrant_array bpfgrant_array;
typedef struct bpfgrant_swappable_map bpfgrant_swappable_map;
typedef struct bpfgrant_uring_loop bpfgrant_uring_loop;

/* --- Errors --- */

/* What went wrong, for a program (`reason`) and for a person (`message`). */
struct bpfgrant_error {
  uint32_t size;
  /* What it was refused for, of proto/bpfgrant/v1/reason.proto, whose numbers
     never change. 0: it was not refused, it failed. */
  int32_t reason;
  /* A sentence, or more, with what to do next. UTF-8, ends in 0; cut off where
     it is longer. */
  char message[2552];
};
#define BPFGRANT_ERROR_INIT                 \
  {                                         \
    sizeof(struct bpfgrant_error), 0, { 0 } \
  }

/* "denied-by-rule"; NULL for a number that this release does not know. Static.
 */
const char* bpfgrant_reason_name(int32_t reason) BPFGRANT_NOEXCEPT;
/* What somebody does next who met that reason: a sentence, or "". Static. */
const char* bpfgrant_reason_next_step(int32_t reason) BPFGRANT_NOEXCEPT;
/* Of this library: "0.1.0". Static. */
const char* bpfgrant_version(void) BPFGRANT_NOEXCEPT;

/* --- The connection --- */

struct bpfgrant_connect_options {
  uint32_t size;
  /* Of each call that waits for an answer. Milliseconds; 0: 10,000. */
  uint32_t timeout_ms;
  const char* path; /* NULL: /run/bpfgrant/broker.sock */
};
#define BPFGRANT_CONNECT_OPTIONS_INIT \
  { sizeof(struct bpfgrant_connect_options), 0, NULL }

/* Opens a session for this process; NULL for `options` means all defaults.
   -ENOTCONN: nobody listens there. -EACCES: whoever listens there is not
   root. */
int bpfgrant_connect(const struct bpfgrant_connect_options* options,
                     bpfgrant_connection** connection,
                     struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* The same over a connected SOCK_SEQPACKET socket, whoever is at its other end.
   Takes the socket over, in any case. `path` counts for nothing. */
int bpfgrant_connect_socket(int socket,
                            const struct bpfgrant_connect_options* options,
                            bpfgrant_connection** connection,
                            struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Ends the session, and with it every grant; those are still to be freed. */
void bpfgrant_connection_close(bpfgrant_connection* connection)
    BPFGRANT_NOEXCEPT;

/* To poll: becomes readable when there is something for
   bpfgrant_connection_dispatch. -1: the daemon is gone. */
int bpfgrant_connection_fd(const bpfgrant_connection* connection)
    BPFGRANT_NOEXCEPT;

/* Who the daemon takes us for. */
struct bpfgrant_session {
  uint32_t size;
  uint32_t uid;
  uint32_t gid;
  uint32_t pid;
  uint64_t session;
  uint8_t administrator; /* 0 or 1 */
  uint8_t token[32];     /* to call over gRPC in this session's name; secret */
  uint8_t reserved[7];
};
#define BPFGRANT_SESSION_INIT                                  \
  {                                                            \
    sizeof(struct bpfgrant_session), 0, 0, 0, 0, 0, {0}, { 0 } \
  }
int bpfgrant_connection_session(const bpfgrant_connection* connection,
                                struct bpfgrant_session* session)
    BPFGRANT_NOEXCEPT;

/* --- Events --- */

enum bpfgrant_event_type {
  BPFGRANT_EVENT_GRANT_BEGAN = 1, /* with bpfgrant_connection_watch only */
  BPFGRANT_EVENT_GRANT_ENDED = 2,
  BPFGRANT_EVENT_RELOADED = 3, /* with bpfgrant_connection_watch only */
  BPFGRANT_EVENT_RESUMED = 4,  /* the daemon was restarted; we go on */
};

struct bpfgrant_event {
  uint32_t size;
  uint32_t type;      /* enum bpfgrant_event_type; there may be more */
  uint64_t grant;     /* 0: about none */
  int32_t reason;     /* why it ended */
  uint32_t uid;       /* whose it is */
  int64_t at_unix_ms; /* milliseconds since 1970 */
  char program[64];   /* ends in 0 */
  char message[512];  /* for people; may be empty; ends in 0 */
};
#define BPFGRANT_EVENT_INIT                                  \
  {                                                          \
    sizeof(struct bpfgrant_event), 0, 0, 0, 0, 0, {0}, { 0 } \
  }

/* Takes what has come, without waiting: grants that were ended say so from now
   on, and events wait for bpfgrant_connection_next_event. -ENOTCONN: the daemon
   is gone, and every grant has ended. */
int bpfgrant_connection_dispatch(bpfgrant_connection* connection,
                                 struct bpfgrant_error* error)
    BPFGRANT_NOEXCEPT;
/* The next event; waits `timeout_ms` at most, 0: not at all. -ETIMEDOUT: there
   is none. 1024 at most are kept for it; the oldest make room. */
int bpfgrant_connection_next_event(
    bpfgrant_connection* connection, uint32_t timeout_ms,
    struct bpfgrant_event* event,
    struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* From now on events of others' grants come as well, as far as the caller may
   see them. */
int bpfgrant_connection_watch(bpfgrant_connection* connection,
                              struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;

/* --- Asking for a program --- */

/* What a grant brings; bpfgrant_acquire(3) explains each. */
enum bpfgrant_delivery {
  BPFGRANT_DELIVERY_ANY = 0,     /* asked for: PROGRAM or ATTACH */
  BPFGRANT_DELIVERY_PROGRAM = 1, /* the program's fd */
  BPFGRANT_DELIVERY_ATTACH = 2,  /* the daemon attached it to `target` */
  BPFGRANT_DELIVERY_RING = 3,    /* and here the loop to `ring` */
  BPFGRANT_DELIVERY_PROCESS = 4, /* the program serves this process */
};

enum bpfgrant_parameter_type {
  BPFGRANT_PARAMETER_INTEGER = 1,
  BPFGRANT_PARAMETER_CHOICE = 2,
  BPFGRANT_PARAMETER_BYTES = 3,
  BPFGRANT_PARAMETER_PREFIX = 4, /* of IP addresses */
  BPFGRANT_PARAMETER_FILE = 5,
};

/* One value that the client chooses. This structure never changes. */
struct bpfgrant_parameter {
  const char* name;
  uint32_t type;   /* enum bpfgrant_parameter_type */
  uint32_t length; /* BYTES and PREFIX: bytes at `bytes`; of a prefix 4 or 16 */
  uint32_t bits;   /* PREFIX: leading bits that count; all others are 0 */
  int32_t fd;      /* FILE; remains the caller's */
  union {
    int64_t integer;
    const char* choice;
    const void* bytes; /* of a prefix the address, in network order */
  } value;
};

struct bpfgrant_acquire_options {
  uint32_t size;
  uint32_t delivery;          /* enum bpfgrant_delivery */
  const char* program;        /* "packet_sampler" */
  const char* interface;      /* "packet_sampler/1" */
  const char* interface_hash; /* of the generated header; NULL: not checked */
  const char* const* handles; /* names of those wanted; NULL: all */
  size_t handle_count;
  const struct bpfgrant_parameter* parameters; /* all others: their defaults */
  size_t parameter_count;
  /* ANY and ATTACH: the socket, or the queue of a tun device. -1: none. */
  int32_t target;
  /* RING: its number among our fds, disabled as yet. -1: none. */
  int32_t ring;
};
#define BPFGRANT_ACQUIRE_OPTIONS_INIT                                      \
  {                                                                        \
    sizeof(struct bpfgrant_acquire_options), 0, NULL, NULL, NULL, NULL, 0, \
        NULL, 0, -1, -1                                                    \
  }

/* Takes a program. */
int bpfgrant_acquire(bpfgrant_connection* connection,
                     const struct bpfgrant_acquire_options* options,
                     bpfgrant_grant** grant,
                     struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Fetches the fds of a grant that was acquired over gRPC in this session.
   `target` and `ring` as in bpfgrant_acquire_options. */
int bpfgrant_claim(bpfgrant_connection* connection, uint64_t id, int target,
                   int ring, bpfgrant_grant** grant,
                   struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Whether bpfgrant_acquire would have something to give, without taking any of
   it; a quota may still be used up. `description` may be NULL. */
int bpfgrant_probe(bpfgrant_connection* connection,
                   const struct bpfgrant_acquire_options* options,
                   bpfgrant_description** description,
                   struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;

enum bpfgrant_hook {
  BPFGRANT_HOOK_FILTER = 1,    /* SO_ATTACH_BPF */
  BPFGRANT_HOOK_REUSEPORT = 2, /* SO_ATTACH_REUSEPORT_EBPF */
};
/* Acquires with DELIVERY_ANY and sees to it that the program is attached to
   `socket`: by its fd where that came, else the daemon has done it and locked
   the socket. bpfgrant_grant_delivery says which it was. */
int bpfgrant_attach_socket(bpfgrant_connection* connection,
                           const struct bpfgrant_acquire_options* options,
                           int socket, enum bpfgrant_hook hook,
                           bpfgrant_grant** grant,
                           struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* The same with the tun or tap device of `queue` (TUNSETSTEERINGEBPF). */
int bpfgrant_attach_tun(bpfgrant_connection* connection,
                        const struct bpfgrant_acquire_options* options,
                        int queue, bpfgrant_grant** grant,
                        struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;

/* --- The grant --- */

uint64_t bpfgrant_grant_id(const bpfgrant_grant* grant) BPFGRANT_NOEXCEPT;
enum bpfgrant_delivery bpfgrant_grant_delivery(const bpfgrant_grant* grant)
    BPFGRANT_NOEXCEPT;
/* 64 hexadecimal digits; the grant's. */
const char* bpfgrant_grant_interface_hash(const bpfgrant_grant* grant)
    BPFGRANT_NOEXCEPT;
/* The program's fd, the grant's; -1 with any other delivery than PROGRAM. */
int bpfgrant_grant_program_fd(const bpfgrant_grant* grant) BPFGRANT_NOEXCEPT;
/* 0: it lives. 1: it has ended, as far as the connection has taken notice. */
int bpfgrant_grant_ended(const bpfgrant_grant* grant) BPFGRANT_NOEXCEPT;
/* Why it ended; 0: it lives. */
int32_t bpfgrant_grant_end_reason(const bpfgrant_grant* grant)
    BPFGRANT_NOEXCEPT;

enum bpfgrant_handle_kind {
  BPFGRANT_HANDLE_PROGRAM = 1,
  BPFGRANT_HANDLE_RING_BUFFER = 2,
  BPFGRANT_HANDLE_ARRAY = 3,
  BPFGRANT_HANDLE_HASH = 4,
  BPFGRANT_HANDLE_SOCKET_ARRAY = 5,
  BPFGRANT_HANDLE_PERCPU_ARRAY = 6,
  BPFGRANT_HANDLE_USER_RING_BUFFER = 7,
  BPFGRANT_HANDLE_LPM_TRIE = 8,
};
enum bpfgrant_rights {
  BPFGRANT_RIGHTS_READ = 1,
  BPFGRANT_RIGHTS_WRITE = 2,
  BPFGRANT_RIGHTS_READ_WRITE = 3,
};

struct bpfgrant_handle {
  uint32_t size;
  uint32_t kind;        /* enum bpfgrant_handle_kind; there may be more */
  uint32_t rights;      /* enum bpfgrant_rights, of the fd */
  int32_t fd;           /* the grant's; -1 in a description */
  uint32_t key_size;    /* bytes */
  uint32_t value_size;  /* bytes */
  uint32_t max_entries; /* of ring buffers: bytes */
  uint32_t mappable;    /* 0 or 1: mmap(2) works on it */
  const char* name;
  const char* swappable; /* of both of a swappable map; "" of any other */
};
#define BPFGRANT_HANDLE_INIT \
  { sizeof(struct bpfgrant_handle), 0, 0, -1, 0, 0, 0, 0, NULL, NULL }

/* How many there are; 0 once the grant was released. */
size_t bpfgrant_grant_handle_count(const bpfgrant_grant* grant)
    BPFGRANT_NOEXCEPT;
/* Fills in `handle`, whose pointers and fd are the grant's until it is released
   or freed. -ENOENT: there are not so many. */
int bpfgrant_grant_handle_at(const bpfgrant_grant* grant, size_t index,
                             struct bpfgrant_handle* handle) BPFGRANT_NOEXCEPT;
/* The same by name. -ENOENT: the grant came without it. */
int bpfgrant_grant_find(const bpfgrant_grant* grant, const char* name,
                        struct bpfgrant_handle* handle) BPFGRANT_NOEXCEPT;

/* Gives it back and waits for the daemon to say so: its gate is closed then,
   and its fds are closed. Once. */
int bpfgrant_grant_release(bpfgrant_grant* grant,
                           struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Likewise, and waits, `patience_ms` longer at most (ten minutes), until the
   kernel has nothing of it any more and it counts against no quota. -ETIMEDOUT
   (REASON_STILL_HELD): something is left; may be called again.
   -EOPNOTSUPP: this kernel does not tell. */
int bpfgrant_grant_release_wait(bpfgrant_grant* grant, uint32_t patience_ms,
                                struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Gives it back without waiting if it lives, and closes its fds. */
void bpfgrant_grant_free(bpfgrant_grant* grant) BPFGRANT_NOEXCEPT;

/* --- Ring buffers: from the program to us --- */

/* Maps the ring buffer `name` of `grant`, whose fd it uses: free it before the
   grant. Works without bpf(2). -EINVAL: it is not a ring buffer. */
int bpfgrant_ring_buffer_open(const bpfgrant_grant* grant, const char* name,
                              bpfgrant_ring_buffer** ring_buffer,
                              struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* The same by fd and size in bytes (a power of two). The fd remains the
   caller's and has to outlive it. */
int bpfgrant_ring_buffer_map(int fd, size_t bytes,
                             bpfgrant_ring_buffer** ring_buffer,
                             struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
void bpfgrant_ring_buffer_free(bpfgrant_ring_buffer* ring_buffer)
    BPFGRANT_NOEXCEPT;
/* To poll: readable when there is a sample. */
int bpfgrant_ring_buffer_fd(const bpfgrant_ring_buffer* ring_buffer)
    BPFGRANT_NOEXCEPT;

/* `bytes` are valid until it returns. It must not throw or jump out. */
typedef void (*bpfgrant_sample_callback)(void* context, const void* bytes,
                                         size_t length);
/* Calls `callback` for each sample that is there, in order, `most` at most (0:
   all); returns how many those were. After `most` there may be more, and no
   poll tells of them. -EBADMSG: what stands there is no ring buffer's. */
ssize_t bpfgrant_ring_buffer_consume(
    bpfgrant_ring_buffer* ring_buffer, bpfgrant_sample_callback callback,
    void* context, size_t most, struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;

/* --- Arrays in memory --- */

/* Maps the array `name` of `grant`, which need not outlive it. -EINVAL: it is
   not mappable with the rights READ_WRITE. */
int bpfgrant_array_map(const bpfgrant_grant* grant, const char* name,
                       bpfgrant_array** array,
                       struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
void bpfgrant_array_free(bpfgrant_array* array) BPFGRANT_NOEXCEPT;
/* The element, of bpfgrant_array_value_size bytes; NULL: there are not so many.
   Programs use it at the same time: only atomic accesses of at most 8 bytes
   mean anything. */
void* bpfgrant_array_at(const bpfgrant_array* array,
                        uint32_t index) BPFGRANT_NOEXCEPT;
uint32_t bpfgrant_array_entries(const bpfgrant_array* array) BPFGRANT_NOEXCEPT;
uint32_t bpfgrant_array_value_size(const bpfgrant_array* array)
    BPFGRANT_NOEXCEPT;

/* --- Swappable maps --- */

/* Two maps of which the program sees one. `name` without ".0" or ".1". Has the
   grant's fds: free it before the grant. */
int bpfgrant_swappable_map_open(const bpfgrant_grant* grant, const char* name,
                                bpfgrant_swappable_map** map,
                                struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
void bpfgrant_swappable_map_free(bpfgrant_swappable_map* map) BPFGRANT_NOEXCEPT;
/* The fd of the one that runs of the program see, and of the other one, as of
   the last bpfgrant_rotate. The grant's. */
int bpfgrant_swappable_map_current(const bpfgrant_swappable_map* map)
    BPFGRANT_NOEXCEPT;
int bpfgrant_swappable_map_spare(const bpfgrant_swappable_map* map)
    BPFGRANT_NOEXCEPT;
/* Turns `count` maps of `grant` over, all at once, and waits, `deadline_ms` at
   most (1 to 60,000), until no run of the program has an old one. -ETIMEDOUT
   with REASON_STILL_READ: they are turned over, but the old ones are to be left
   alone until a call with a count of 0, which waits on, returns 0. Each other
   error changed nothing. */
int bpfgrant_rotate(bpfgrant_grant* grant, bpfgrant_swappable_map* const* maps,
                    size_t count, uint32_t deadline_ms,
                    struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;

/* --- User ring buffers: from us to the program --- */

/* As with ring buffers. */
int bpfgrant_user_ring_buffer_open(
    const bpfgrant_grant* grant, const char* name,
    bpfgrant_user_ring_buffer** ring_buffer,
    struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
int bpfgrant_user_ring_buffer_map(
    int fd, size_t bytes, bpfgrant_user_ring_buffer** ring_buffer,
    struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
void bpfgrant_user_ring_buffer_free(bpfgrant_user_ring_buffer* ring_buffer)
    BPFGRANT_NOEXCEPT;
/* To poll: writable when there is any room. */
int bpfgrant_user_ring_buffer_fd(const bpfgrant_user_ring_buffer* ring_buffer)
    BPFGRANT_NOEXCEPT;
/* The largest sample, and what waits to be drained, headers included. Bytes. */
size_t bpfgrant_user_ring_buffer_max_sample(
    const bpfgrant_user_ring_buffer* ring_buffer) BPFGRANT_NOEXCEPT;
size_t bpfgrant_user_ring_buffer_pending(
    const bpfgrant_user_ring_buffer* ring_buffer) BPFGRANT_NOEXCEPT;

/* Room for a sample of `bytes`, to be written and then submitted or discarded.
   A program sees samples in the order of their reserving. -EINVAL: none can be
   so large here. -ENOBUFS: no room now. -EBADMSG: somebody else writes there.
 */
int bpfgrant_user_ring_buffer_reserve(
    bpfgrant_user_ring_buffer* ring_buffer, size_t bytes, void** sample,
    struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Waits for room, until a program drains and wakes; -1: for ever. -ETIMEDOUT;
   -ECANCELED: a signal came. */
int bpfgrant_user_ring_buffer_reserve_wait(
    bpfgrant_user_ring_buffer* ring_buffer, size_t bytes, int timeout_ms,
    void** sample, struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Of what was reserved with so many `bytes`, each once, from any thread. */
void bpfgrant_user_ring_buffer_submit(bpfgrant_user_ring_buffer* ring_buffer,
                                      void* sample,
                                      size_t bytes) BPFGRANT_NOEXCEPT;
void bpfgrant_user_ring_buffer_discard(bpfgrant_user_ring_buffer* ring_buffer,
                                       void* sample,
                                       size_t bytes) BPFGRANT_NOEXCEPT;

/* --- What there is --- */

struct bpfgrant_program {
  uint32_t size;
  uint32_t available; /* 0 or 1 */
  int32_t reason;     /* why it is not */
  uint32_t allowed;   /* 0 or 1: the caller may have it */
  uint32_t ready;     /* instances that wait to be granted */
  uint32_t grants;    /* live ones */
  const char* name;
  const char* interface;
  const char* description;
};
#define BPFGRANT_PROGRAM_INIT \
  { sizeof(struct bpfgrant_program), 0, 0, 0, 0, 0, NULL, NULL, NULL }

/* `program` and all that it points to are valid until it returns. It must not
   use the connection. */
typedef void (*bpfgrant_program_callback)(
    void* context, const struct bpfgrant_program* program);
/* Calls `callback` for each program that the caller may have; for each there
   is, if it is an administrator. */
int bpfgrant_list(bpfgrant_connection* connection,
                  bpfgrant_program_callback callback, void* context,
                  struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;

int bpfgrant_describe(bpfgrant_connection* connection, const char* program,
                      bpfgrant_description** description,
                      struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
void bpfgrant_description_free(bpfgrant_description* description)
    BPFGRANT_NOEXCEPT;
/* All pointers are the description's. */
int bpfgrant_description_program(const bpfgrant_description* description,
                                 struct bpfgrant_program* program)
    BPFGRANT_NOEXCEPT;
size_t bpfgrant_description_handle_count(
    const bpfgrant_description* description) BPFGRANT_NOEXCEPT;
int bpfgrant_description_handle_at(const bpfgrant_description* description,
                                   size_t index, struct bpfgrant_handle* handle)
    BPFGRANT_NOEXCEPT;

enum bpfgrant_description_text_kind {
  BPFGRANT_TEXT_INTERFACE_HASH = 1, /* 64 hexadecimal digits */
  BPFGRANT_TEXT_HEADER = 2,         /* the C header for the program's clients */
  BPFGRANT_TEXT_REFUSAL = 3,        /* why it is not available */
  BPFGRANT_TEXT_IRREVOCABLE = 4,    /* what a revocation cannot take back */
  BPFGRANT_TEXT_VARIANT = 5,        /* the one this kernel took */
};
/* "": there is nothing to say, or `which` is none of these. */
const char* bpfgrant_description_text(const bpfgrant_description* description,
                                      enum bpfgrant_description_text_kind which)
    BPFGRANT_NOEXCEPT;

struct bpfgrant_verdict {
  uint32_t size;
  uint32_t allowed;   /* 0 or 1 */
  int32_t reason;     /* why not */
  uint32_t available; /* 0 or 1: whether there is anything to be had */
  uint32_t quota;     /* grants at once */
  uint32_t in_use;    /* of those */
};
#define BPFGRANT_VERDICT_INIT \
  { sizeof(struct bpfgrant_verdict), 0, 0, 0, 0, 0 }
/* Whether the caller may have the program, and why. `sentence`, if not NULL,
   gets all of it for a person, to be freed with free(3). */
int bpfgrant_explain(bpfgrant_connection* connection, const char* program,
                     struct bpfgrant_verdict* verdict, char** sentence,
                     struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;

/* --- Loops --- */

struct bpfgrant_native_loop; /* bpfgrant/loop_native.h */
struct bpfgrant_loop_status; /* bpfgrant/loop_status.h */
struct io_uring_cqe;         /* linux/io_uring.h */
struct iovec;                /* sys/uio.h */

enum bpfgrant_loop_where {
  BPFGRANT_LOOP_KERNEL_ONLY = 0,
  BPFGRANT_LOOP_KERNEL_ELSE_PROCESS = 1,
  BPFGRANT_LOOP_PROCESS_ONLY = 2, /* asks the daemon for nothing */
};

struct bpfgrant_uring_loop_options {
  uint32_t size;
  uint32_t where; /* enum bpfgrant_loop_where */
  const char* program;
  const char* interface;      /* "chain/1" */
  const char* interface_hash; /* NULL: not checked */
  /* &bpfgrant_native_NAME, for KERNEL_ELSE_PROCESS and PROCESS_ONLY; has to
     outlive the loop. */
  const struct bpfgrant_native_loop* native;
  /* The ring's geometry where the daemon cannot be asked; 0: 64, 128, none and
     65,536. */
  uint32_t sq_entries;
  uint32_t cq_entries;
  size_t memory_bytes;
  uint32_t step_budget;
  uint32_t file_count;
  /* Memory instead of the library's own: page-aligned; has to outlive the loop.
     NULL: the library's. */
  void* memory;
  size_t memory_length; /* bytes at `memory` */
  /* Registered with the ring before it is enabled. */
  const struct iovec* buffers;
  size_t buffer_count;
  const int* files;
};
#define BPFGRANT_URING_LOOP_OPTIONS_INIT                                      \
  {                                                                           \
    sizeof(struct bpfgrant_uring_loop_options), 0, NULL, NULL, NULL, NULL, 0, \
        0, 0, 0, 0, NULL, 0, NULL, 0, NULL                                    \
  }

/* Makes a ring and has the program drive it, in the kernel or as its native
   twin in this process. One thread runs it: the one that called this.
   `connection` may be NULL with PROCESS_ONLY, and otherwise has to stay open.
 */
int bpfgrant_uring_loop_create(
    bpfgrant_connection* connection,
    const struct bpfgrant_uring_loop_options* options,
    bpfgrant_uring_loop** loop, struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Gives the grant back and closes the ring, which cancels its requests. */
void bpfgrant_uring_loop_free(bpfgrant_uring_loop* loop) BPFGRANT_NOEXCEPT;

/* 1: in the kernel. 0: in this process. */
int bpfgrant_uring_loop_in_kernel(const bpfgrant_uring_loop* loop)
    BPFGRANT_NOEXCEPT;
/* Why it is not in the kernel; "" if it is. The loop's. */
const char* bpfgrant_uring_loop_place_reason(const bpfgrant_uring_loop* loop)
    BPFGRANT_NOEXCEPT;
/* The memory that the loop sees, and its size in bytes. The loop's. */
void* bpfgrant_uring_loop_memory(bpfgrant_uring_loop* loop,
                                 size_t* bytes) BPFGRANT_NOEXCEPT;

enum bpfgrant_stop_cause {
  BPFGRANT_CAUSE_LOOP = 0,        /* the loop itself: `why` and `detail` */
  BPFGRANT_CAUSE_INTERRUPTED = 1, /* a signal; run it again */
  BPFGRANT_CAUSE_DEADLINE = 2,
  BPFGRANT_CAUSE_DETACHED = 3, /* the grant ended, and so has the loop */
};
struct bpfgrant_stopped {
  uint32_t size;
  uint32_t cause; /* enum bpfgrant_stop_cause */
  uint32_t why;   /* enum bpfgrant_stop, bpfgrant/loop_status.h */
  int32_t detail; /* what the loop said with it */
};
#define BPFGRANT_STOPPED_INIT \
  { sizeof(struct bpfgrant_stopped), 0, 0, 0 }

enum bpfgrant_run_flags {
  BPFGRANT_RUN_NO_WAIT = 1,     /* stop with IDLE rather than sleep */
  BPFGRANT_RUN_STOP_BUDGET = 2, /* do not go on by itself after BUDGET */
};
/* Runs it until it stops. `deadline_ns` by CLOCK_MONOTONIC; 0: none. -EPERM:
   another thread than the loop's. */
int bpfgrant_uring_loop_run(bpfgrant_uring_loop* loop, uint32_t flags,
                            uint64_t deadline_ns,
                            struct bpfgrant_stopped* stopped,
                            struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Has a run under way, or the next one, stop with BPFGRANT_STOP_WOKEN and
   `detail`: one run each call. From any thread; not from a signal handler. */
int bpfgrant_uring_loop_wake(bpfgrant_uring_loop* loop, int32_t detail,
                             struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* To poll after a stop with BPFGRANT_STOP_IDLE; read 8 bytes from it, then run
   with BPFGRANT_RUN_NO_WAIT. The loop's. */
int bpfgrant_uring_loop_event_fd(const bpfgrant_uring_loop* loop)
    BPFGRANT_NOEXCEPT;
/* The next completion that the loop left for us (BPFGRANT_STOP_PASSED), or
   NULL; and that it was taken. Between runs. */
const struct io_uring_cqe* bpfgrant_uring_loop_peek_completion(
    bpfgrant_uring_loop* loop) BPFGRANT_NOEXCEPT;
void bpfgrant_uring_loop_seen_completion(bpfgrant_uring_loop* loop)
    BPFGRANT_NOEXCEPT;
/* What it counted so far. The loop's. */
const struct bpfgrant_loop_status* bpfgrant_uring_loop_status(
    const bpfgrant_uring_loop* loop) BPFGRANT_NOEXCEPT;
/* Calls of io_uring_enter(2) so far. */
uint64_t bpfgrant_uring_loop_enters(const bpfgrant_uring_loop* loop)
    BPFGRANT_NOEXCEPT;
/* The ring's number among our fds. */
int bpfgrant_uring_loop_ring_fd(const bpfgrant_uring_loop* loop)
    BPFGRANT_NOEXCEPT;
/* What the loop emits; free it before the loop. -ENOENT: it has no events. */
int bpfgrant_uring_loop_events(bpfgrant_uring_loop* loop,
                               bpfgrant_ring_buffer** events,
                               struct bpfgrant_error* error) BPFGRANT_NOEXCEPT;
/* Its grant, with the program's handles; NULL in the process. The loop's: not
   to be released or freed. */
bpfgrant_grant* bpfgrant_uring_loop_grant(bpfgrant_uring_loop* loop)
    BPFGRANT_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif /* BPFGRANT_BPFGRANT_H_ */

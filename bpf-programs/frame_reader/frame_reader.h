/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a process and the loop `frame_reader` share: interface frame_reader/1.
 * For BPF, C and C++. No structure has a hole. Who includes the header that the
 * build generates, too, has the structures of that one: include it first.
 */
#ifndef BPFGRANT_FRAME_READER_H_
#define BPFGRANT_FRAME_READER_H_

#include <bpfgrant/loop_order.h>
#include <linux/types.h>

#define FRAME_READER_CONNECTIONS 256
#define FRAME_READER_WORKERS 16
#define FRAME_READER_CLASSES 8
#define FRAME_READER_SLABS 4096
#define FRAME_READER_COMMANDS 8192
#define FRAME_READER_STAGING (4U << 20)
#define FRAME_READER_CHUNK_LEAST (16U << 10)
#define FRAME_READER_CHUNK_MOST (1U << 20)
#define FRAME_READER_EVENT_BYTES (256U << 10)

enum frame_reader_mode {
  FRAME_READER_DIRECT = 1, /* each body straight into a slab */
  FRAME_READER_BULK = 2,   /* many frames at once, left where they came */
};

enum frame_reader_flags {
  /* `fd` of a connection is an index of the ring's registered files. */
  FRAME_READER_FIXED_FILES = 1,
  /* The slabs are the ring's registered buffer 0. */
  FRAME_READER_FIXED_SLABS = 2,
};

enum frame_event_kind {
  FRAME_ARRIVED = 0,
  FRAME_END = 1,        /* the peer closed; `length`: of an unfinished frame */
  FRAME_ERROR = 2,      /* `length`: errno */
  FRAME_TOO_LONG = 3,   /* `length`: what its header says */
  FRAME_BAD_WORKER = 4, /* `worker`: what its header says */
};

enum frame_reader_order {
  FRAME_READER_OPEN = 1, /* `detail` is a connection's number, `value` its fd */
  FRAME_READER_GIVE = 2, /* `value` is a place, `detail` how many of the places
                            in its chunk are given back (DIRECT: 1) */
};

#define FRAME_READER_LOT 128
#define FRAME_READER_PEEK 12224 /* the rest of 16 KiB */

#ifndef BPFGRANT_INTERFACE_FRAME_READER_H_

/* Before each body, in the byte order of the machine. */
struct frame_header {
  __u32 length; /* of the body */
  __u32 worker; /* whom it is for: 0 to config.workers - 1 */
};

/* Written by the process before the first run, and read once at its begin; but
   for `stop_after`, which is read in each step. */
struct frame_reader_config {
  __u32 mode;        /* enum frame_reader_mode */
  __u32 flags;       /* enum frame_reader_flags */
  __u32 workers;     /* 1 to FRAME_READER_WORKERS */
  __u32 max_length;  /* of a body; 0: as long as there is room for */
  __u32 chunk_bytes; /* BULK: a power of two, FRAME_READER_CHUNK_* */
  /* 0: events wake a reader that sleeps, and the loop goes on. Otherwise none
     is woken, and the loop stops with BPFGRANT_STOP_PASSED after so many
     events, or after fewer rather than sleep. */
  __u32 stop_after;
  __u64 memory; /* the address of this memory in the process */
  /* DIRECT: where the slabs are. Each worker has, one behind the other,
     class_slabs[0] slabs of class_bytes[0] bytes and so on; the workers' follow
     each other. Slabs are counted in that order. The first 8 bytes of a slab
     are the loop's, for a header; the body is what follows. */
  __u64 slabs;
  __u32 classes; /* DIRECT: 1 to FRAME_READER_CLASSES */
  __u32 reserved;
  /* Each more than the one before, and more than 8. */
  __u32 class_bytes[FRAME_READER_CLASSES];
  __u32 class_slabs[FRAME_READER_CLASSES]; /* of each worker, 1 at least */
};

/* One record of the ring buffer `events` is one or more of these. Any kind but
   ARRIVED is the connection's last. */
struct frame_event {
  __u16 kind;
  __u16 connection;
  __u32 worker;
  __u32 length;
  /* DIRECT: the slab; BULK: the body's offset in `staging`. It is the reader's
     until it gives it back; a frame of length 0 has none. */
  __u32 place;
};

struct frame_reader_command {
  __u32 what; /* enum frame_reader_order << 24 | detail */
  __u32 value;
};

/* Written by the loop at the end of each step. */
struct frame_reader_totals {
  __u64 frames;
  __u64 bytes;  /* of bodies */
  __u64 copied; /* BULK: bytes moved from one chunk to another */
  __u32 open;   /* connections */
  /* Connections that wait for a slab or a chunk: give some back, then wake the
     loop. */
  __u32 starved;
};

/* DIRECT: what the requests of one connection point to. */
struct frame_reader_desk {
  struct frame_header header;
  __u64 message[7]; /* as struct msghdr */
  struct {
    __u64 base;
    __u64 length;
  } vectors[FRAME_READER_LOT]; /* as struct iovec */
  struct frame_event lot[FRAME_READER_LOT];
  __u8 peeked[FRAME_READER_PEEK];
};

struct frame_reader_memory {
  struct frame_reader_config config;
  struct frame_reader_totals totals;
  __u32 command_tail; /* the process's */
  __u32 command_head; /* the loop's */
  __u8 unused[4096 - sizeof(struct frame_reader_config) -
              sizeof(struct frame_reader_totals) - 2 * sizeof(__u32)];
  struct frame_reader_command commands[FRAME_READER_COMMANDS];
  union {
    __u8 staging[FRAME_READER_STAGING];                       /* BULK */
    struct frame_reader_desk desks[FRAME_READER_CONNECTIONS]; /* DIRECT */
  } __attribute__((aligned(4096)));
  __u8 after_staging[4096]; /* so that what begins in it ends in here */
};

#endif

#ifndef __bpf__

/* Adds a command; one thread at a time. False: the loop has not yet taken the
   earlier ones. A loop that sleeps has to be woken for it. */
static inline int frame_reader_tell(struct frame_reader_memory* memory,
                                    enum frame_reader_order order, __u32 detail,
                                    __u32 value) {
  const __u32 tail = memory->command_tail;
  struct frame_reader_command* command =
      &memory->commands[tail % FRAME_READER_COMMANDS];

  if (tail - bpfgrant_load_acquire(&memory->command_head) >=
      FRAME_READER_COMMANDS)
    return 0;
  command->what = (__u32)order << 24 | (detail & 0xffffff);
  command->value = value;
  bpfgrant_store_release(&memory->command_tail, tail + 1);
  return 1;
}

/* Bytes of all slabs of one worker. */
static inline __u64 frame_reader_worker_bytes(
    const struct frame_reader_config* config) {
  __u64 bytes = 0;
  __u32 i;

  for (i = 0; i < config->classes; i++)
    bytes += (__u64)config->class_bytes[i] * config->class_slabs[i];
  return bytes;
}

/* Where the body in a slab begins, in bytes from config.slabs. */
static inline __u64 frame_reader_body_offset(
    const struct frame_reader_config* config, __u32 slab) {
  __u64 offset = sizeof(struct frame_header);
  __u32 of_worker = 0, rest, i;

  for (i = 0; i < config->classes; i++) of_worker += config->class_slabs[i];
  rest = slab % of_worker;
  for (i = 0; i + 1 < config->classes && rest >= config->class_slabs[i]; i++) {
    offset += (__u64)config->class_bytes[i] * config->class_slabs[i];
    rest -= config->class_slabs[i];
  }
  return slab / of_worker * frame_reader_worker_bytes(config) + offset +
         (__u64)rest * config->class_bytes[i];
}

#endif

#endif /* BPFGRANT_FRAME_READER_H_ */

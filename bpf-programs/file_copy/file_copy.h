/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a process and the loop `file_copy` share: interface file_copy/1. For
 * BPF, C and C++. No structure has a hole.
 */
#ifndef BPFGRANT_FILE_COPY_H_
#define BPFGRANT_FILE_COPY_H_

#include <linux/types.h>

#define FILE_COPY_LANES                                \
  64 /* a power of two, and what the ring has room for \
      */
#define FILE_COPY_EXTENTS 4096
#define FILE_COPY_MAX_BLOCK (1U << 24)
#define FILE_COPY_TO_END (~0ULL)
/* Completions of nobody's request that a run puts up with. */
#define FILE_COPY_STRANGERS (1U << 16)

enum file_copy_flags {
  FILE_COPY_FROM_SLOT = 1, /* `from_fd` is a slot of the registered files */
  FILE_COPY_TO_SLOT = 2,   /* and so is `to_fd` */
  FILE_COPY_BUFFER = 4,    /* `buffers` are in the registered buffer `buffer` */
};

/* Written by the process before it runs the loop, and read once at the start
   but for `quit`. */
struct file_copy_job {
  __s32 from_fd;
  __s32 to_fd;
  __u32 flags;   /* enum file_copy_flags */
  __u32 block;   /* bytes of a request: 1 to FILE_COPY_MAX_BLOCK */
  __u32 lanes;   /* blocks under way at once: 1 to FILE_COPY_LANES */
  __u32 buffer;  /* index of a registered buffer */
  __u64 buffers; /* address of lanes * block bytes */
  __u64 limit;   /* bytes after which it stops; 0: none */
  __u32 extents; /* how many, at most FILE_COPY_EXTENTS */
  __u32 extent;  /* where to begin: in this one, */
  __u64 skip;    /* behind so many of its bytes */
  __u32 quit;    /* at any time: not 0: begin no further block */
  __u32 reserved;
};

/* Read when it is its turn. */
struct file_copy_extent {
  __u64 from; /* offset in the source */
  __u64 to;   /* in the destination */
  __u64 length;
};

enum file_copy_reason {
  FILE_COPY_FINE,
  FILE_COPY_BAD_FLAGS,
  FILE_COPY_BAD_BLOCK,
  FILE_COPY_BAD_LANES,
  FILE_COPY_BAD_BUFFER,  /* an index beyond 65535, or one without the flag */
  FILE_COPY_BAD_EXTENTS, /* too many, or it should begin behind the last */
  FILE_COPY_BAD_EXTENT,  /* in_extent: no such offsets in a file */
  FILE_COPY_BAD_SKIP,    /* in_extent: it is not so long */
  FILE_COPY_NOT_READ,    /* `error` of a read, in_extent, at `error_at` */
  FILE_COPY_NOT_WRITTEN, /* `error` of a write, in_extent, at `error_at` */
  FILE_COPY_STRANGE,     /* the ring was full of completions not its own */
  FILE_COPY_REASONS,
};

/* Written by the loop; whole when it has stopped by itself. */
struct file_copy_outcome {
  __u32 reason;    /* enum file_copy_reason: of the first error, by place */
  __s32 error;     /* -errno; of what is wrong with the job, -EINVAL */
  __u32 in_extent; /* where */
  __u32 extent;    /* all before this one, */
  __u64 skip;      /* and so many of its bytes, are copied: where to resume */
  __u64 error_at;  /* in the source, or in the destination */
  __u64 end; /* where the source ended inside an extent; ~0 if it did not */
  __u64 bytes;
  __u64 short_reads;
  __u64 short_writes;
};

struct file_copy_memory {
  struct file_copy_job job;
  struct file_copy_outcome outcome;
  struct file_copy_extent extents[FILE_COPY_EXTENTS];
};

#endif /* BPFGRANT_FILE_COPY_H_ */

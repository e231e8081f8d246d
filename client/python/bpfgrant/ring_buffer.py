# SPDX-License-Identifier: Apache-2.0
"""Reads a BPF ring buffer, without a call of bpf(2)."""

import mmap

from bpfgrant.v1 import messages_pb2


class RingBuffer:
    """A BPF ring buffer, read by mmap(2) (kernel/bpf/ringbuf.c): a page with the
    consumer's position, which is ours to write, one with the producer's, and the
    data, mapped twice in a row so that no sample wraps.

    The mapping counts as a part of the grant: close it before a release that
    waits. Python orders no accesses to memory: where the processor does not
    either, or a wake-up must not be missed, use the libraries; here a poll should
    have a timeout."""

    _BUSY, _DISCARD, _HEADER = 1 << 31, 1 << 30, 8

    def __init__(self, handle):
        if handle.description.kind != messages_pb2.HANDLE_KIND_RING_BUFFER:
            raise ValueError(f"{handle.name} is not a ring buffer")
        self._fd = handle.fd
        self._bytes = handle.description.max_entries
        self._consumer = mmap.mmap(self._fd, mmap.PAGESIZE, mmap.MAP_SHARED,
                                   mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(
            self._fd, mmap.PAGESIZE + 2 * self._bytes, mmap.MAP_SHARED,
            mmap.PROT_READ, offset=mmap.PAGESIZE)
        # Accesses of a whole word at once, as the kernel's other side needs it.
        self._position = memoryview(self._consumer).cast("L")
        self._words = memoryview(self._producer).cast("I")
        self._end = memoryview(self._producer).cast("L")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        """To poll: readable when there is a sample."""
        return self._fd

    def close(self):
        for view in (self._position, self._words, self._end):
            view.release()
        self._consumer.close()
        self._producer.close()

    def read(self):
        """The samples that are there, as bytes."""
        position = self._position[0]
        while position != self._end[0]:
            available = self._end[0] - position
            at = mmap.PAGESIZE + (position & (self._bytes - 1))
            if not self._HEADER <= available <= self._bytes or position % 8:
                raise ValueError("what stands there is no ring buffer's")
            word = self._words[at // 4]
            if word & self._BUSY:
                return
            length = word & ~(self._BUSY | self._DISCARD)
            whole = (length + self._HEADER + 7) & ~7
            if whole > available:
                raise ValueError("what stands there is no ring buffer's")
            sample = None
            if not word & self._DISCARD:
                start = at + self._HEADER
                sample = self._producer[start:start + length]
            position += whole
            self._position[0] = position
            if sample is not None:
                yield sample

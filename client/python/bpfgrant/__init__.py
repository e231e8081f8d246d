# SPDX-License-Identifier: Apache-2.0
"""A client of bpfgrantd in plain Python: sockets and protobuf.

    with bpfgrant.Connection() as connection:
        grant = connection.acquire("packet_sampler", "packet_sampler/1",
                                   delivery=bpfgrant.DELIVERY_ANY, target=my_socket)
        grant.attach_to(my_socket)
        with bpfgrant.RingBuffer(grant["samples"]) as samples:
            for sample in samples.read():
                ...

It is proto/PROTOCOL.md put into practice, and meant to be read beside it. It must
not need anything compiled but what Python itself has, and leaves io_uring loops
to the libraries in C and C++.

One thread at a time uses a Connection and what came of it. A child after fork(2)
connects anew.
"""

import array
import collections
import os
import select
import socket
import struct
import time

from bpfgrant.ring_buffer import RingBuffer
from bpfgrant.v1 import broker_pb2, messages_pb2, reason_pb2

__all__ = [
    "Connection", "DEFAULT_SOCKET", "DELIVERY_ANY", "DELIVERY_ATTACH",
    "DELIVERY_PROCESS", "DELIVERY_PROGRAM", "Error", "Gone", "Grant", "Handle",
    "RingBuffer",
]

DEFAULT_SOCKET = "/run/bpfgrant/broker.sock"

DELIVERY_ANY = messages_pb2.DELIVERY_ANY
DELIVERY_PROGRAM = messages_pb2.DELIVERY_PROGRAM
DELIVERY_ATTACH = messages_pb2.DELIVERY_ATTACH
DELIVERY_PROCESS = messages_pb2.DELIVERY_PROCESS

# proto/wire/limits.h.
_MAX_FRAME_BYTES = 64 * 1024
_MAX_FDS_PER_GRANT = 16
_TOKEN_BYTES = 32
# The kernel's: with room for all that can come, a surplus is seen and closed.
_SCM_MAX_FD = 253
_MAX_KEPT_EVENTS = 1024

_SO_ATTACH_BPF = 50
_SO_PEERCRED_FORMAT = "3i"  # struct ucred: pid, uid, gid


class Error(Exception):
    """What the daemon refused: `reason` is a number of reason.proto."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason

    @property
    def reason_name(self):
        """Like "denied-by-rule"."""
        try:
            name = reason_pb2.Reason.Name(self.reason)
        except ValueError:
            return f"reason-{self.reason}"
        return name[len("REASON_"):].lower().replace("_", "-")


class Gone(ConnectionError):
    """The connection is over, and every grant with it."""


class Handle(collections.namedtuple("Handle", "description fd")):
    """One fd of a grant, which owns it, and what it is (messages.proto)."""

    @property
    def name(self):
        return self.description.name


class Grant:
    """What the session holds of a program, until it is released or ended."""

    def __init__(self, connection, reply, fds):
        self._connection = connection
        self.id = reply.grant
        self.delivery = reply.delivery
        self.handles = {
            description.name: Handle(description, fd)
            for description, fd in zip(reply.handle, fds)
        }
        # A number of reason.proto, once it has ended.
        self.end_reason = reason_pb2.REASON_UNSPECIFIED

    def __getitem__(self, name):
        return self.handles[name]

    @property
    def ended(self):
        """As of the connection's last call; `dispatch` brings it up to date."""
        return self.end_reason != reason_pb2.REASON_UNSPECIFIED

    @property
    def program_fd(self):
        """-1 with any other delivery than PROGRAM."""
        for handle in self.handles.values():
            if handle.description.kind == messages_pb2.HANDLE_KIND_PROGRAM:
                return handle.fd
        return -1

    def attach_to(self, target):
        """Attaches a socket filter by its fd; does nothing if the daemon did."""
        if self.delivery == DELIVERY_PROGRAM:
            target.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, self.program_fd)

    def release(self, wait_ms=0):
        """Gives it back; with `wait_ms`, until nothing of it is left."""
        self.close()
        if self.ended and wait_ms == 0:
            return
        frame = broker_pb2.ClientFrame()
        frame.release.grant = self.id
        frame.release.wait_ms = wait_ms
        self._connection._call(frame, patience=wait_ms / 1000)
        self._connection._end(self.id, reason_pb2.REASON_RELEASED)

    def close(self):
        """Closes the fds alone."""
        for handle in self.handles.values():
            os.close(handle.fd)
        self.handles = {}


class Connection:
    """A session of this process's."""

    def __init__(self, path=DEFAULT_SOCKET, timeout=10.0, require_root=True):
        """Raises OSError if nobody listens, PermissionError if it is not root."""
        self._timeout = timeout
        self._last_request = 0
        self._grants = {}
        self._events = collections.deque(maxlen=_MAX_KEPT_EVENTS)
        self._pending = collections.OrderedDict()  # number: (bytes, fds)
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            self._socket.setblocking(False)
            if require_root:
                self._check_server(path)
            self.session = self._hello()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def fileno(self):
        """To poll: readable when there is something for `dispatch`."""
        return self._socket.fileno()

    def close(self):
        """Ends the session, and with it every grant."""
        self._socket.close()
        for grant in list(self._grants.values()):
            self._end(grant.id, reason_pb2.REASON_SESSION_ENDED)

    # --- Calls ---------------------------------------------------------------

    def acquire(self, program, interface, interface_hash="", handles=(),
                delivery=DELIVERY_PROGRAM, target=None, parameters=()):
        """A Grant. `target`: the socket to attach to, with ATTACH and ANY.
        `parameters`: of bpfgrant.v1.parameter_pb2.ParameterValue."""
        frame = broker_pb2.ClientFrame()
        frame.acquire.program = program
        frame.acquire.interface = interface
        frame.acquire.interface_hash = interface_hash
        frame.acquire.delivery = delivery
        frame.acquire.handle.extend(handles)
        frame.acquire.parameter.extend(parameters)
        fds = [] if target is None else [target.fileno()]
        reply, fds = self._call(frame, fds)
        if not reply.HasField("acquire") or len(reply.acquire.handle) != len(fds):
            _close_all(fds)
            self.close()
            raise Gone("bpfgrantd sent other fds than it says")
        grant = Grant(self, reply.acquire, fds)
        self._grants[grant.id] = grant
        return grant

    def describe(self, program):
        """A DescribeReply."""
        frame = broker_pb2.ClientFrame()
        frame.describe.program = program
        return self._call(frame)[0].describe

    def list(self):
        """A list of ProgramSummary; reads all pages."""
        programs, after = [], ""
        while True:
            frame = broker_pb2.ClientFrame()
            frame.list.after = after
            reply = self._call(frame)[0].list
            programs.extend(reply.program)
            if not reply.next:
                return programs
            if reply.next <= after:
                raise Gone("bpfgrantd's answer does not go on")
            after = reply.next

    def explain(self, program):
        """An ExplainReply about ourselves."""
        frame = broker_pb2.ClientFrame()
        frame.explain.program = program
        return self._call(frame)[0].explain

    # --- Events --------------------------------------------------------------

    def dispatch(self):
        """Takes what has come, without waiting; returns the events. Gone: there
        are none, nor will there be."""
        try:
            while (packet := self._receive_now()) is not None:
                self._take(*packet)
        except Gone:
            # What came before the end comes first.
            if not self._events:
                raise
        events = list(self._events)
        self._events.clear()
        return events

    # --- The wire ------------------------------------------------------------

    def _check_server(self, path):
        # Whoever could bind that path: the kernel says who called listen(2).
        size = struct.calcsize(_SO_PEERCRED_FORMAT)
        peer = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        if struct.unpack(_SO_PEERCRED_FORMAT, peer)[1] != 0:
            raise PermissionError(f"{path} is not root's: that is not bpfgrantd")

    def _hello(self):
        frame = broker_pb2.ClientFrame()
        frame.hello.version = broker_pb2.PROTOCOL_VERSION_1
        frame.hello.client = "bpfgrant.py"
        until = time.monotonic() + self._timeout
        self._send(frame, [], until)
        while True:
            reply, fds = self._receive(until)
            _close_all(fds)
            if reply.HasField("refusal"):
                raise Error(reply.refusal.reason, reply.refusal.message)
            if reply.HasField("challenge"):
                identify = broker_pb2.ClientFrame()
                identify.identify.nonce = reply.challenge.nonce
                self._send(identify, [], until)
            elif reply.HasField("hello"):
                break
        if (reply.hello.version != broker_pb2.PROTOCOL_VERSION_1
                or len(reply.hello.token) != _TOKEN_BYTES):
            raise Gone("bpfgrantd did not answer the Hello")
        return reply.hello

    def _call(self, frame, fds=(), patience=0.0):
        """The reply and its fds; raises Error for a refusal."""
        until = time.monotonic() + self._timeout + patience
        number = self._number(frame)
        # Kept until the answer: a daemon that was restarted wants it again.
        self._pending[number] = (frame.SerializeToString(), list(fds))
        try:
            self._put(*self._pending[number], until)
            while True:
                reply, came = self._receive(until)
                if reply.request == number:
                    break
                self._take(reply, came, until)
        finally:
            self._pending.pop(number, None)
        if reply.HasField("refusal"):
            _close_all(came)
            raise Error(reply.refusal.reason, reply.refusal.message)
        return reply, came

    def _number(self, frame):
        self._last_request += 1
        frame.request = self._last_request
        return self._last_request

    def _send(self, frame, fds, until):
        self._number(frame)
        self._put(frame.SerializeToString(), fds, until)

    def _put(self, data, fds, until):
        if self._socket.fileno() < 0:
            raise Gone("bpfgrantd is gone; connect again")
        if len(data) > _MAX_FRAME_BYTES:
            raise ValueError("the request is too large")
        # Effective ids, as the kernel noted them at connect(2); without this it
        # would add the real ones.
        control = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS,
                    struct.pack("3i", os.getpid(), os.geteuid(), os.getegid()))]
        if fds:
            control.insert(0, (socket.SOL_SOCKET, socket.SCM_RIGHTS,
                               array.array("i", fds)))
        while True:
            try:
                self._socket.sendmsg([data], control, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                self._wait(select.POLLOUT, until)
            except (BrokenPipeError, ConnectionResetError):
                self._gone_because()

    def _receive(self, until):
        while True:
            packet = self._receive_now()
            if packet is not None:
                return packet
            self._wait(select.POLLIN, until)

    def _receive_now(self):
        """A frame and its fds; None: there is nothing now."""
        if self._socket.fileno() < 0:
            raise Gone("bpfgrantd is gone; connect again")
        room = (socket.CMSG_SPACE(_SCM_MAX_FD * 4) +
                socket.CMSG_SPACE(struct.calcsize(_SO_PEERCRED_FORMAT)))
        try:
            data, control, flags, _ = self._socket.recvmsg(
                _MAX_FRAME_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # Told before what was sent ahead of it.
            return self._receive_now()
        fds = array.array("i")
        for level, kind, raw in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(raw[:len(raw) - len(raw) % fds.itemsize])
        frame = broker_pb2.ServerFrame()
        try:
            if not data:
                raise Gone("bpfgrantd is gone; connect again")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise Gone("a packet was cut off")
            if len(fds) > _MAX_FDS_PER_GRANT:
                raise Gone("more fds than a grant can have")
            frame.ParseFromString(data)
        except Exception as error:
            _close_all(fds)
            self.close()
            if isinstance(error, Gone):
                raise
            raise Gone("bpfgrantd sent a frame that does not parse") from error
        return frame, list(fds)

    def _take(self, frame, fds, until=None):
        """What nobody waits for: events, a restart, and late answers."""
        _close_all(fds)
        if frame.HasField("event"):
            event = frame.event
            if event.type == messages_pb2.Event.TYPE_GRANT_ENDED:
                self._end(event.grant.grant, event.reason)
            self._events.append(event)
        elif frame.HasField("resumed"):
            self._resume(frame.resumed.restart, until)
        elif frame.HasField("acquire"):
            # Of a call that was given up: nobody will hold it.
            release = broker_pb2.ClientFrame()
            release.release.grant = frame.acquire.grant
            self._send(release, [], time.monotonic() + self._timeout)
        elif frame.HasField("refusal") and frame.request == 0:
            self.close()
            raise Error(frame.refusal.reason, frame.refusal.message)

    def _resume(self, restart, until):
        """Says what we wait for, and then all of it again, as it was."""
        if until is None:
            until = time.monotonic() + self._timeout
        frame = broker_pb2.ClientFrame()
        frame.resume.restart = restart
        frame.resume.pending.extend(self._pending)
        frame.resume.grant.extend(sorted(self._grants))
        self._send(frame, [], until)
        for data, fds in list(self._pending.values()):
            self._put(data, fds, until)

    def _gone_because(self):
        """The end, or why the daemon turned us away before it hung up."""
        while True:
            packet = self._receive_now()
            if packet is None:
                self.close()
                raise Gone("bpfgrantd is gone; connect again")
            self._take(*packet)

    def _wait(self, events, until):
        poll = select.poll()
        poll.register(self._socket, events)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise TimeoutError("bpfgrantd did not answer in time")

    def _end(self, grant, reason):
        ended = self._grants.pop(grant, None)
        if ended is not None:
            ended.end_reason = reason


def _close_all(fds):
    for fd in fds:
        os.close(fd)

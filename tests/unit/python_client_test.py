"""The client in Python, with a daemon whose part is played here: what a daemon
that is well does not do, or not on this kernel."""

import array
import contextlib
import gc
import os
import select
import socket
import struct
import tempfile
import threading
import unittest

import bpfgrant
from bpfgrant.v1 import broker_pb2, messages_pb2, reason_pb2

TOKEN = b"t" * 32


class Daemon:
    """Plays `part` in a thread, with one client."""

    def __init__(self, part):
        self._folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self._folder.name, "broker.sock")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen()
        self._part = part
        self._error = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._folder.cleanup()
        if self._error is not None and kind is None:
            raise self._error

    def _run(self):
        try:
            self.peer, _ = self._listener.accept()
        except OSError:
            return
        with self.peer:
            self.peer.settimeout(10)
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            try:
                self._part(self)
            except BaseException as error:
                self._error = error

    def read(self):
        """A frame, how many fds came with it, and whose it is."""
        data, control, _, _ = self.peer.recvmsg(65536, 4096)
        count, sender = 0, None
        for _, kind, raw in control:
            if kind == socket.SCM_RIGHTS:
                fds = array.array("i", raw)
                count = len(fds)
                for fd in fds:
                    os.close(fd)
            else:
                sender = struct.unpack("3i", raw)
        frame = broker_pb2.ClientFrame()
        frame.ParseFromString(data)
        return frame, count, sender

    def say(self, fds=(), **fields):
        frame = broker_pb2.ServerFrame(**fields)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        self.peer.sendmsg([frame.SerializeToString()], control if fds else [])

    def open(self):
        frame, _, _ = self.read()
        assert frame.hello.version == 1, frame
        self.say(request=frame.request, hello=hello())


def hello():
    return broker_pb2.HelloReply(version=1, session=5, token=TOKEN, uid=1)


def connect(daemon, **options):
    return bpfgrant.Connection(daemon.path, require_root=False, **options)


def described(name="x"):
    summary = messages_pb2.ProgramSummary(name=name)
    return messages_pb2.DescribeReply(summary=summary)


def wait(connection):
    if connection.fileno() >= 0:
        select.select([connection], [], [], 10)


def open_fds():
    gc.collect()  # Sockets that an exception of before holds.
    return len(os.listdir("/proc/self/fd"))


class HelloTest(unittest.TestCase):
    def test_a_challenge_is_answered(self):
        def part(daemon):
            daemon.say(challenge=broker_pb2.Challenge(nonce=b"n" * 32))
            first, _, sender = daemon.read()
            second, _, _ = daemon.read()
            assert sender == (os.getpid(), os.geteuid(), os.getegid()), sender
            assert second.identify.nonce == b"n" * 32, second
            assert second.request > first.request
            daemon.say(request=first.request, hello=hello())

        with Daemon(part) as daemon, connect(daemon) as connection:
            self.assertEqual(connection.session.session, 5)

    def test_turned_away(self):
        def part(daemon):
            daemon.say(refusal=messages_pb2.Refusal(
                reason=reason_pb2.REASON_TOO_MANY_SESSIONS, message="full"))

        with Daemon(part) as daemon:
            with self.assertRaises(bpfgrant.Error) as caught:
                connect(daemon)
            self.assertEqual(caught.exception.reason_name, "too-many-sessions")

    def test_a_token_that_is_none(self):
        def part(daemon):
            frame, _, _ = daemon.read()
            daemon.say(request=frame.request,
                       hello=broker_pb2.HelloReply(version=1, token=b"short"))

        with Daemon(part) as daemon, self.assertRaises(bpfgrant.Gone):
            connect(daemon)

    def test_whoever_is_not_root(self):
        # Of the thread that calls listen(2), before it does.
        uid = os.geteuid()
        if uid == 0:
            os.seteuid(65534)
        try:
            daemon = Daemon(lambda daemon: None)
        finally:
            os.seteuid(uid)
        with daemon, self.assertRaises(PermissionError):
            bpfgrant.Connection(daemon.path)


class ResumeTest(unittest.TestCase):
    def test_what_is_waited_for_is_sent_again(self):
        def part(daemon):
            daemon.open()
            lost, count, _ = daemon.read()
            assert lost.HasField("acquire") and count == 1, lost
            daemon.say(resumed=broker_pb2.Resumed(restart=3))
            resume, _, _ = daemon.read()
            assert resume.resume.restart == 3, resume
            assert list(resume.resume.pending) == [lost.request], resume
            assert resume.request > lost.request
            daemon.say(request=resume.request, resume=broker_pb2.ResumeReply())
            again, count, _ = daemon.read()
            assert again == lost and count == 1, again
            with open("/dev/null") as file:
                reply = messages_pb2.AcquireReply(
                    grant=7, delivery=bpfgrant.DELIVERY_PROGRAM)
                reply.handle.add(name="program",
                                 kind=messages_pb2.HANDLE_KIND_PROGRAM)
                daemon.say([file.fileno()], request=again.request, acquire=reply)
            after, _, _ = daemon.read()
            assert after.request > resume.request, after
            daemon.say(request=after.request, describe=described())
            daemon.say(resumed=broker_pb2.Resumed(restart=4))
            once_more, _, _ = daemon.read()
            assert list(once_more.resume.grant) == [7], once_more
            assert not once_more.resume.pending, once_more

        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with own, Daemon(part) as daemon, connect(daemon) as connection:
            grant = connection.acquire("x", "x/1", target=own)
            self.assertGreaterEqual(grant.program_fd, 0)
            self.assertEqual(connection.describe("x").summary.name, "x")
            self.assertEqual(grant.id, 7)
            wait(connection)
            # The daemon of this test ends after that.
            with contextlib.suppress(bpfgrant.Gone):
                connection.dispatch()
            grant.close()

    def test_twice_and_with_nothing_to_wait_for(self):
        def part(daemon):
            daemon.open()
            for restart in (1, 2):
                daemon.say(resumed=broker_pb2.Resumed(restart=restart))
                resume, _, _ = daemon.read()
                assert resume.resume.restart == restart, resume
                assert not resume.resume.pending, resume
                daemon.say(request=resume.request,
                           resume=broker_pb2.ResumeReply())
            daemon.say(event=messages_pb2.Event(
                type=messages_pb2.Event.TYPE_RESUMED))

        with Daemon(part) as daemon, connect(daemon) as connection:
            events = []
            while not events:
                wait(connection)
                events = connection.dispatch()
            self.assertEqual(events[0].type, messages_pb2.Event.TYPE_RESUMED)


class FramesTest(unittest.TestCase):
    def test_an_answer_that_is_late_is_given_back(self):
        released = []

        def part(daemon):
            daemon.open()
            late, _, _ = daemon.read()
            wanted, _, _ = daemon.read()
            reply = messages_pb2.AcquireReply(grant=7)
            reply.handle.add(name="program")
            with open("/dev/null") as file:
                daemon.say([file.fileno()], request=late.request, acquire=reply)
            daemon.say(request=wanted.request, describe=described())
            released.append(daemon.read()[0].release.grant)
            daemon.peer.recv(1)  # Nothing: the end.

        with Daemon(part) as daemon:
            with connect(daemon, timeout=0.2) as connection:
                with self.assertRaises(TimeoutError):
                    connection.acquire("x", "x/1")
                connection._timeout = 10
                before = open_fds()
                connection.describe("x")
                self.assertEqual(open_fds(), before)
        self.assertEqual(released, [7])

    def test_other_fds_than_it_says(self):
        def part(daemon):
            daemon.open()
            frame, _, _ = daemon.read()
            with open("/dev/null") as file:
                daemon.say([file.fileno()] * 2, request=frame.request,
                           acquire=messages_pb2.AcquireReply(grant=7))

        with Daemon(part) as daemon, connect(daemon) as connection:
            with self.assertRaises(bpfgrant.Gone):
                connection.acquire("x", "x/1")

    def test_more_fds_than_a_grant_has(self):
        def part(daemon):
            daemon.open()
            frame, _, _ = daemon.read()
            with open("/dev/null") as file:
                daemon.say([file.fileno()] * 17, request=frame.request,
                           acquire=messages_pb2.AcquireReply(grant=7))

        with Daemon(part) as daemon, connect(daemon) as connection:
            with self.assertRaises(bpfgrant.Gone):
                connection.acquire("x", "x/1")

    def test_what_does_not_parse(self):
        def part(daemon):
            daemon.open()
            daemon.read()
            daemon.peer.send(b"\xff\xff\xff")

        with Daemon(part) as daemon, connect(daemon) as connection:
            with self.assertRaises(bpfgrant.Gone):
                connection.describe("x")

    def test_an_end_ends_every_grant(self):
        def part(daemon):
            daemon.open()
            for number in (7, 8):
                frame, _, _ = daemon.read()
                daemon.say(request=frame.request,
                           acquire=messages_pb2.AcquireReply(grant=number))
            event = messages_pb2.Event(
                type=messages_pb2.Event.TYPE_GRANT_ENDED,
                reason=reason_pb2.REASON_REVOKED)
            event.grant.grant = 7
            daemon.say(event=event)

        with Daemon(part) as daemon, connect(daemon) as connection:
            first = connection.acquire("x", "x/1")
            second = connection.acquire("x", "x/1")
            with self.assertRaises(bpfgrant.Gone):
                while True:
                    wait(connection)
                    connection.dispatch()
            self.assertEqual(first.end_reason, reason_pb2.REASON_REVOKED)
            self.assertEqual(second.end_reason, reason_pb2.REASON_SESSION_ENDED)

    def test_pages_that_do_not_go_on(self):
        def part(daemon):
            daemon.open()
            for _ in range(2):
                frame, _, _ = daemon.read()
                reply = messages_pb2.ListReply(next="b")
                daemon.say(request=frame.request, list=reply)

        with Daemon(part) as daemon, connect(daemon) as connection:
            with self.assertRaises(bpfgrant.Gone):
                connection.list()


if __name__ == "__main__":
    unittest.main()

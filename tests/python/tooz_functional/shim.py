"""A tooz coordinator of which every other lock is Scoria's.

Scoria's locks are had through a pipe from the program `lock-peer`, one process for each coordinator. Both sides name a lock as
Cinder does, with its prefix, so that they meet at the lock service.
"""
import itertools
import subprocess
import threading

import tooz
from tooz import coordination
from tooz import locking

PREFIX = b"cinder-"

#: How long an answer may take that does not wait for a lock.
PATIENCE = 60


class Peer:
    """A process of Scoria's."""

    def __init__(self, program, url):
        self._process = subprocess.Popen(
            [program, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        first = self._process.stdout.readline().split()
        if not first or first[0] != "ready":
            raise coordination.ToozConnectionError(f"lock-peer ended: {self._process.wait()}")
        self.features = first[1:]
        self._numbers = itertools.count()
        self._answers = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        for line in self._process.stdout:
            number, _, answer = line.strip().partition(" ")
            with self._changed:
                self._answers[number] = answer
                self._changed.notify_all()
        with self._changed:
            self._answers = None
            self._changed.notify_all()

    def ask(self, command, patience=PATIENCE):
        """The answer's first word, and the rest."""
        with self._changed:
            number = str(next(self._numbers))
            self._process.stdin.write(f"{number} {command}\n")
            there = self._changed.wait_for(lambda: self._answers is None or number in self._answers, patience)
            if not there or self._answers is None:
                raise coordination.OperationTimedOut(f"no answer to {command}")
            word, _, rest = self._answers.pop(number).partition(" ")
        if word == "unsupported":
            raise tooz.NotImplemented(rest)
        if word == "error":
            raise tooz.ToozError(rest)
        return word, rest

    def stop(self):
        self._process.stdin.close()
        self._process.wait(PATIENCE)


class ScoriaLock(locking.Lock):
    """A lock of Scoria's, with the manners of tooz'."""

    def __init__(self, peer, name, can_break):
        super().__init__(name)
        self._peer = peer
        self._can_break = can_break
        self._handles = []

    def _ask(self, verb, *words, patience=PATIENCE):
        return self._peer.ask(" ".join((verb, *words)), patience)

    def acquire(self, blocking=True, shared=False, timeout=None):
        if shared and "shared" not in self._peer.features:
            raise tooz.NotImplemented("no shared mode")
        if timeout is not None:
            blocking = timeout
        wait = {True: "ever", False: "no"}[blocking] if isinstance(blocking, bool) else str(float(blocking))
        patience = None if blocking is True else PATIENCE + float(blocking)
        mode = "shared" if shared else "exclusive"
        word, handle = self._ask("acquire", self.name.decode("ascii"), mode, wait, patience=patience)
        if word == "got":
            self._handles.append(handle)
        return word == "got"

    def release(self):
        return bool(self._handles) and self._ask("release", self._handles.pop())[0] == "done"

    def is_still_owner(self):
        return bool(self._handles) and self._ask("verify", self._handles[-1])[0] == "done"

    def break_(self):
        if not self._can_break:
            # As tooz with the same lock service.
            raise tooz.NotImplemented("not implemented")
        return self._ask("break", self.name.decode("ascii"))[0] == "done"

    @property
    def acquired(self):
        return bool(self._handles)


class Mixed(coordination.CoordinationDriver):
    """A coordinator that hands out tooz' locks and Scoria's by turns, in the order of `turns`."""

    def __init__(self, program, url, real, member_id, turns):
        super().__init__(member_id, None, {})
        self._program = program
        self._url = url
        self._real = real
        self._turns = turns
        self._peer = None

    def _start(self):
        self._real.start(start_heart=True)
        self._peer = Peer(self._program, self._url)

    def _stop(self):
        self._peer.stop()
        self._real.stop()

    def get_lock(self, name):
        theirs = self._real.get_lock(PREFIX + name)
        if next(self._turns) == "tooz":
            return theirs
        return ScoriaLock(self._peer, name, type(theirs).break_ is not locking.Lock.break_)

"""tooz' own functional tests of locks, with one side replaced by Scoria.   run.py LOCK_PEER URL FIRST [LEFT_OUT...]

LOCK_PEER is the program for Scoria's side. FIRST, `tooz` or `scoria`, is whose lock each test gets first; the next one is the other
side's, and so on by turns. The last line of output is {test: [outcome, why]} for every test of tooz' that has to do with locks;
those LEFT_OUT are not run.

The tests come with tooz (`tooz/tests/test_coordination.py`); `tests/tests/tooz_functional.rs` says which of them cannot be run
with two sides, and why.
"""
import itertools
import json
import os
import sys
import threading
import types
import unittest

try:
    import sysv_ipc  # noqa: F401
except ImportError:
    # The tests import tooz' driver for it, although nobody asks for that lock service here.
    sys.modules["sysv_ipc"] = types.SimpleNamespace(KEY_MIN=0, KEY_MAX=1)

import tooz.coordination

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from shim import Mixed  # noqa: E402

LOCK_PEER, URL, FIRST, *LEFT_OUT = sys.argv[1:]

#: How long a test may take: one that hangs is a failure, not the end of the run.
LIMIT = 120

SIDES = ["tooz", "scoria"] if FIRST == "tooz" else ["scoria", "tooz"]
real_get_coordinator = tooz.coordination.get_coordinator


class Turns:
    """Whose lock comes next."""

    def __init__(self):
        self.coordinators = []
        self.begin()

    def begin(self):
        # A test's child process is spawned and imports this file again: what it asks for is the test's second lock.
        second = __name__ == "__mp_main__"
        self.sides = itertools.islice(itertools.cycle(SIDES), int(second), None)

    def __next__(self):
        return next(self.sides)

    def get_coordinator(self, url, member_id, **options):
        real = real_get_coordinator(url, member_id, **options)
        coordinator = Mixed(LOCK_PEER, url, real, member_id, self)
        self.coordinators.append(coordinator)
        return coordinator

    def end(self):
        """Stops what the test left running."""
        for coordinator in self.coordinators:
            if coordinator.is_started:
                coordinator.stop()
        self.coordinators.clear()


turns = Turns()
tooz.coordination.get_coordinator = turns.get_coordinator
os.environ["TOOZ_TEST_URL"] = URL

from tooz.tests import test_coordination  # noqa: E402


def run(name):
    """Outcome and why."""
    turns.begin()
    result = unittest.TestResult()
    thread = threading.Thread(target=test_coordination.TestAPI(name).run, args=(result,), daemon=True)
    thread.start()
    thread.join(LIMIT)
    if thread.is_alive():
        return "hangs", f"after {LIMIT} s"
    turns.end()
    for _, why in result.errors + result.failures:
        return "failed", str(why)
    for _, why in result.skipped:
        return "skipped", str(why)
    return "passed", ""


def main():
    names = unittest.defaultTestLoader.getTestCaseNames(test_coordination.TestAPI)
    locks = [name for name in names if "lock" in name]
    outcomes = {name: ("left out", "") if name in LEFT_OUT else run(name) for name in locks}
    print(json.dumps(outcomes), flush=True)
    # Threads of tests that hang are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()

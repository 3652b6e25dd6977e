"""Measures the locks of real tooz on one lock service: what docs/benchmarks.md compares Scoria's with.

    measure_tooz.py URL SECONDS [contended]

Prints one JSON object: latencies of free locks in seconds (acquire and release together), pairs per second from 8 threads (each
with a name that was never used, as in Cinder nearly all are), latencies of a hand-over to a waiter, and how many turns each of 8
waiters had. Without `contended` only the first two.
"""

import json
import sys
import threading
import time
import uuid

from tooz import coordination


def coordinator(url):
    made = coordination.get_coordinator(url, ("cinder-%s" % uuid.uuid4()).encode())
    made.start(start_heart=True)
    return made


def name():
    return ("cinder-%s-delete_volume" % uuid.uuid4()).encode()


def free(url, seconds):
    one = coordinator(url)
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        wanted = name()
        began = time.monotonic()
        lock = one.get_lock(wanted)
        assert lock.acquire()
        lock.release()
        taken.append(time.monotonic() - began)
    one.stop()
    return taken


def rate(url, seconds):
    """One process, one coordinator, 8 threads: more are not faster."""
    one = coordinator(url)
    counts = [0] * 8
    end = time.monotonic() + seconds

    def work(place):
        while time.monotonic() < end:
            lock = one.get_lock(name())
            assert lock.acquire()
            lock.release()
            counts[place] += 1

    run_all([threading.Thread(target=work, args=(place,)) for place in range(8)])
    one.stop()
    return sum(counts) / seconds


def hand_over(url, seconds):
    """Two coordinators; the holder lets go 30 ms after the other one began to wait."""
    one, two = coordinator(url), coordinator(url)
    wanted = name()
    taken = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(taken) < 5:
        held, waited = one.get_lock(wanted), two.get_lock(wanted)
        assert held.acquire()
        got = []

        def wait():
            assert waited.acquire()
            got.append(time.monotonic())
            waited.release()

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.03)
        released = time.monotonic()
        held.release()
        waiter.join()
        taken.append(got[0] - released)
    one.stop()
    two.stop()
    return taken


def turns(url, seconds):
    """Four coordinators with two waiters each, one lock, held for a millisecond."""
    wanted = name()
    coordinators = [coordinator(url) for _ in range(4)]
    counts = [0] * 8
    end = time.monotonic() + seconds

    def work(place):
        lock = coordinators[place % 4].get_lock(wanted)
        while time.monotonic() < end:
            assert lock.acquire()
            counts[place] += 1
            time.sleep(0.001)
            lock.release()

    run_all([threading.Thread(target=work, args=(place,)) for place in range(8)])
    for one in coordinators:
        one.stop()
    return counts


def run_all(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    url, seconds = sys.argv[1], float(sys.argv[2])
    measured = {"free": free(url, seconds), "rate": rate(url, seconds)}
    if "contended" in sys.argv:
        measured["hand_over"] = hand_over(url, seconds)
        measured["turns"] = turns(url, seconds)
    print(json.dumps(measured))


if __name__ == "__main__":
    main()

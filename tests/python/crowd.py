"""Several clients at work on volumes of their own.   crowd.py URL SHARE CLIENTS ROUNDS [beside-python]

Says {"started": true} once the first volume is there, so that whoever started it can break things from then on. Requests
may be refused while things are broken; what was accepted must come to its end.
"""
import json
import sys
import threading
import time
import traceback

from cloud import Cloud, Refused


def patiently(call, *args, **kwargs):
    """The call's answer; tried again while the API cannot reach its broker."""
    end = time.monotonic() + 120
    while True:
        try:
            return call(*args, **kwargs)
        except Refused as refusal:
            if refusal.code < 500 or time.monotonic() > end:
                raise
            time.sleep(0.5)


def work(url, share, rounds, started, failures, done):
    cloud = Cloud(url, share, timeout=240)
    try:
        for _ in range(rounds):
            volume = cloud.wait(patiently(cloud.client.volumes.create, 1))
            started.set()
            snapshot = cloud.wait(patiently(cloud.client.volume_snapshots.create, volume.id))
            copy = cloud.wait(patiently(cloud.client.volumes.create, 1, snapshot_id=snapshot.id))
            patiently(cloud.client.volume_snapshots.delete, snapshot.id)
            cloud.wait_gone(snapshot)
            for one in (volume, copy):
                patiently(cloud.client.volumes.delete, one.id)
            for one in (volume, copy):
                cloud.wait_gone(one)
            done.append(1)
    except BaseException:
        failures.append(traceback.format_exc())
        started.set()


def main():
    url, share, clients, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    started, failures, done = threading.Event(), [], []
    threads = [threading.Thread(target=work, args=(url, share, rounds, started, failures, done)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    started.wait()
    print(json.dumps({"started": True}), flush=True)
    for thread in threads:
        thread.join()
    if failures:
        print(json.dumps({"failures": failures}), flush=True)
        sys.exit(1)
    Cloud(url, share).share_is_empty(beside_python="beside-python" in sys.argv)
    print(json.dumps({"rounds": len(done)}), flush=True)


if __name__ == "__main__":
    main()

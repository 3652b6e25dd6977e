"""Clones of a volume while it is being deleted, by several clients at once.   clone_against_delete.py URL SHARE CLIENTS ROUNDS

A clone may come too late and fail. It may never be `available` with anything but its source's data, and afterwards
nothing may be left on the share.
"""
import json
import os
import random
import sys
import tempfile
import threading
import time
import traceback

from cloud import MIB, Cloud, Image, NotFound, Refused


def clone(cloud, source_id, into):
    try:
        into.append(cloud.client.volumes.create(1, source_volid=source_id))
    except Refused as refusal:
        # The API saw that the source is going away or gone.
        assert refusal.code in (400, 404), refusal


def round_of(cloud, other, scratch):
    source, image = cloud.create(), Image(scratch)
    for _ in range(2):
        cloud.write(source, image, random.randrange(0, 1008) * MIB, 16 * MIB)
    clones = []
    # One clone is asked for before the delete and on its way through the scheduler while that is asked for; how far it gets
    # is up to the pause. The other one is asked for at the same time as the delete.
    clone(cloud, source.id, clones)
    time.sleep(random.choice([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4]))
    racing = threading.Thread(target=clone, args=(other, source.id, clones))
    racing.start()
    cloud.client.volumes.delete(source.id)
    racing.join()
    cloud.wait_gone(source)
    outcome = {"good": 0, "late": 0, "refused": 2 - len(clones)}
    for made in clones:
        end = time.monotonic() + cloud.timeout
        while (made := cloud.client.volumes.get(made.id)).status == "creating":
            assert time.monotonic() < end, "the clone %s of %s stays in creating" % (made.id, source.id)
            time.sleep(0.1)
        if made.status == "available":
            cloud.same(made, image)
            outcome["good"] += 1
        else:
            assert made.status == "error", made.status
            outcome["late"] += 1
    cloud.delete(*clones)
    for name in (source.id, *(made.id for made in clones)):
        assert not cloud.files(name), "left over: %s" % cloud.files(name)
    os.remove(image.path)
    return outcome


def work(url, share, scratch, rounds, outcomes, failures):
    cloud, other = Cloud(url, share), Cloud(url, share)
    try:
        for _ in range(rounds):
            if failures:
                return
            outcomes.append(round_of(cloud, other, scratch))
    except BaseException:
        failures.append(traceback.format_exc())


def main():
    url, share, clients, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    outcomes, failures = [], []
    with tempfile.TemporaryDirectory(prefix="scoria-images-") as scratch:
        arguments = (url, share, scratch, rounds, outcomes, failures)
        threads = [threading.Thread(target=work, args=arguments) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, "\n".join(failures)
    Cloud(url, share).share_is_empty()
    total = {key: sum(outcome[key] for outcome in outcomes) for key in ("good", "late", "refused")}
    print(json.dumps(dict(total, rounds=len(outcomes))))


if __name__ == "__main__":
    main()

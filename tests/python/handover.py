"""Volumes that one volume service makes and another one takes over.

handover.py URL SHARE make DIRECTORY     makes them, with one service up
handover.py URL SHARE use DIRECTORY      works on them, with the other one up
"""
import json
import os
import sys

from cloud import GIB, MIB, Cloud, Image


def make(cloud, directory):
    plain, image = cloud.create(name="plain"), Image(directory)
    cloud.write(plain, image, 3 * MIB)
    chained, chained_image = cloud.create(name="chained"), Image(directory)
    snapshots = []
    for number in range(3):
        cloud.write(chained, chained_image, number * 200 * MIB)
        snapshots.append([cloud.snapshot(chained).id, chained_image.copy().path])
    cloud.write(chained, chained_image, 0)
    clone = cloud.create(1, source_volid=plain.id, name="clone")
    doomed = cloud.create(name="doomed")
    cloud.snapshot(doomed)
    made = dict(plain=[plain.id, image.path], chained=[chained.id, chained_image.path], clone=[clone.id, image.path],
                snapshots=snapshots, doomed=doomed.id)
    with open(os.path.join(directory, "made"), "w") as file:
        json.dump(made, file)


def use(cloud, directory):
    with open(os.path.join(directory, "made")) as file:
        made = json.load(file)

    def found(key):
        volume_id, path = made[key]
        image = Image(directory, 0)
        image.path = path
        return cloud.client.volumes.get(volume_id), image

    plain, image = found("plain")
    clone, _ = found("clone")
    chained, chained_image = found("chained")
    for volume, expected in ((plain, image), (clone, image), (chained, chained_image)):
        cloud.same(volume, expected)
    first, second, third = (cloud.client.volume_snapshots.get(snapshot) for snapshot, _ in made["snapshots"])
    at_second = Image(directory, 0)
    at_second.path = made["snapshots"][1][1]
    restored = cloud.create(1, snapshot_id=second.id)
    cloud.same(restored, at_second)
    # The middle, the newest, one more on top, then the oldest: every way in which a chain is merged.
    cloud.delete(second)
    cloud.same(chained, chained_image)
    cloud.delete(third)
    cloud.same(chained, chained_image)
    cloud.write(chained, chained_image, GIB - MIB)
    fourth = cloud.snapshot(chained)
    cloud.write(chained, chained_image, 0)
    cloud.delete(first)
    cloud.same(chained, chained_image)
    cloud.chains_are_sound()
    copy = cloud.create(1, source_volid=chained.id)
    cloud.same(copy, chained_image)
    cloud.delete(fourth)
    cloud.same(chained, chained_image)
    cloud.client.volumes.extend(plain, 2)
    plain = cloud.wait(plain)
    cloud.same(plain, image.copy(2))
    cloud.delete(cloud.client.volumes.get(made["doomed"]), cascade=True)
    cloud.delete(plain, clone, chained, restored, copy)
    cloud.share_is_empty(beside_python=True)


def main():
    cloud = Cloud(sys.argv[1], sys.argv[2])
    {"make": make, "use": use}[sys.argv[3]](cloud, sys.argv[4])
    cloud.report()


if __name__ == "__main__":
    main()

"""Snapshots of volumes that a server uses, with a stand-in for Nova.   attached.py URL SHARE NOVA_PORT [SCENE…]

The service makes the files, Nova has the server use them, and cinder-api tells the one what the other has done. After each
step the guest's data, the chain of files, the notes beside it and the copies of all snapshots must be right.
"""
import json
import os
import sys
import tempfile
import threading
import time
import uuid

from cloud import CONNECTOR, MIB, Cloud, Image, NotFound, run
from fake_nova import FakeNova

PROGRESS = "os-extended-snapshot-attributes:progress"


class Disk:
    """A volume with a running server, and what there should be of it."""

    def __init__(self, cloud, nova, scratch):
        self.cloud, self.nova = cloud, nova
        self.volume, self.image = cloud.create(), Image(scratch)
        # From the base to the active file.
        self.chain = ["volume-" + self.volume.id]
        # The overlay of each snapshot, and what the volume had in it then.
        self.forward, self.contents = {}, {}
        self.attach()

    # The server.

    def attach(self):
        attachment = self.cloud.client.attachments.create(self.volume.id, CONNECTOR, str(uuid.uuid4()))
        self.attachment = attachment["id"]
        self.start()
        self.cloud.client.attachments.complete(self.attachment)
        self.volume = self.cloud.wait(self.volume, "in-use")

    def connection(self):
        return self.cloud.client.attachments.show(self.attachment).connection_info

    def start(self):
        """On the file that the attachment names, as Nova does."""
        info = self.connection()
        self.cloud.check(info["driver_volume_type"] == "nfs" and info["export"] == "127.0.0.1:/scoria", info)
        self.server = self.nova.attach(self.volume.id, self.cloud.path(info["name"]), info["format"])

    def restart(self):
        self.nova.detach(self.volume.id)
        self.start()
        self.server.same(self.image)

    def detach(self):
        self.nova.detach(self.volume.id)
        self.cloud.client.attachments.delete(self.attachment)
        self.volume = self.cloud.wait(self.volume)

    def write(self, offset):
        self.server.write(self.image, offset)

    # Snapshots.

    def ask_for_snapshot(self):
        return self.cloud.client.volume_snapshots.create(self.volume.id, force=True)

    def snapshot(self):
        return self.taken(self.ask_for_snapshot())

    def taken(self, snapshot, bad=("error",)):
        """Waits for it. What the guest has written so far is in it."""
        snapshot = self.cloud.wait(snapshot, bad=bad)
        self.cloud.check(getattr(snapshot, PROGRESS) == "100%", "progress is %s" % getattr(snapshot, PROGRESS))
        self.is_in_chain(snapshot)
        return snapshot

    def is_in_chain(self, snapshot):
        self.forward[snapshot.id] = "volume-%s.%s" % (self.volume.id, snapshot.id)
        self.contents[snapshot.id] = (snapshot, self.image.copy())
        self.chain.append(self.forward[snapshot.id])

    def delete(self, snapshot, **kwargs):
        snapshot.manager.delete(snapshot.id, **kwargs)
        self.deleted(snapshot)

    def deleted(self, snapshot, attached=True, bad=("error_deleting",)):
        """Waits for it, and says which files are left: remotefs.py tells what becomes of them in each case."""
        self.cloud.wait_gone(snapshot, bad=bad)
        overlay = self.forward.pop(snapshot.id)
        del self.contents[snapshot.id]
        below = self.chain[self.chain.index(overlay) - 1]
        if attached and overlay == self.chain[-1]:
            # The server keeps its file, which takes over what is below it and stands for the snapshot before, if there is one.
            self.chain.remove(below)
            self.forward.update({other: overlay for other, file in self.forward.items() if file == below})
        else:
            self.chain.remove(overlay)

    # What there is.

    def files(self):
        """The volume's files, but for what is no data."""
        return [name for name in self.cloud.files(self.volume.id) if not name.endswith((".info", ".scoria-lock"))]

    def notes(self):
        try:
            with open(self.cloud.path("volume-%s.info" % self.volume.id)) as info:
                return json.load(info)
        except FileNotFoundError:
            return {"active": "volume-" + self.volume.id}

    def check(self, copies=True):
        check, active = self.cloud.check, self.chain[-1]
        self.server.same(self.image)
        check(self.server.chain() == self.chain[::-1], "QEMU has %s, not %s" % (self.server.chain(), self.chain))
        check(self.files() == sorted(self.chain), "%s, not %s" % (self.files(), self.chain))
        check(self.notes() == dict(self.forward, active=active), "%s, not %s" % (self.notes(), self.forward))
        # The volume's own file is raw, the others are qcow2, also the one into which everything was pulled.
        formats = ["raw" if name == "volume-" + self.volume.id else "qcow2" for name in self.chain]
        headers = json.loads(run("qemu-img", "info", "-U", "-f", formats[-1], "--backing-chain", "--output=json",
                                 self.cloud.path(active)))
        found = [(os.path.basename(file["filename"]), file["format"], file.get("backing-filename")) for file in headers]
        wanted = list(zip(self.chain, formats, [None] + self.chain))[::-1]
        check(found == wanted, "%s, not %s" % (found, wanted))
        info = self.connection()
        check((info["name"], info["format"]) == (active, formats[-1]), "a server would be given %s" % info)
        for snapshot, content in self.contents.values() if copies else ():
            copy = self.cloud.create(1, snapshot_id=snapshot.id)
            self.cloud.same(copy, content)
            self.cloud.delete(copy)

    def end(self):
        """The server stops, the snapshots and the volume are deleted, and nothing is left."""
        self.detach()
        self.cloud.same(self.volume, self.image)
        self.cloud.chains_are_sound()
        self.cloud.delete(*[snapshot for snapshot, _ in self.contents.values()])
        self.cloud.same(self.volume, self.image)
        self.cloud.delete(self.volume)
        self.cloud.check(not self.cloud.files(self.volume.id), "left over: %s" % self.cloud.files(self.volume.id))


def one_snapshot(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    snapshot = disk.snapshot()
    disk.check()
    # What the guest writes now is none of the snapshot's.
    disk.write(0)
    disk.write(200 * MIB)
    disk.check()
    # After a stop and a start the server has the same disk.
    disk.restart()
    disk.delete(snapshot)
    disk.check()
    disk.restart()
    # Everything was pulled up: what is left of the chain is a qcow2 file, which goes on as before.
    disk.write(300 * MIB)
    snapshot = disk.snapshot()
    disk.write(301 * MIB)
    disk.check()
    disk.delete(snapshot)
    disk.check()
    disk.end()


def in_several_orders(cloud, nova, scratch):
    # The middle one is committed, as is the oldest while there are others; the newest is pulled onto what is left below it, and
    # the last one is pulled out of everything.
    for order in (1, 0, 2), (2, 1, 0), (0, 2, 1):
        disk = Disk(cloud, nova, scratch)
        snapshots = []
        for number in range(3):
            disk.write(number * 100 * MIB)
            disk.write(350 * MIB)
            snapshots.append(disk.snapshot())
        disk.write(350 * MIB)
        disk.write(100 * MIB)
        disk.check()
        for number in order:
            disk.delete(snapshots[number])
            disk.check()
            disk.write(number * 100 * MIB + 4096)
        disk.restart()
        disk.end()


def detached_and_attached_again(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    first = disk.snapshot()
    disk.write(MIB)
    second = disk.snapshot()
    disk.write(2 * MIB)
    disk.detach()
    cloud.same(disk.volume, disk.image)
    # Without a server the service does it alone, on what a server was given; and the other way round.
    third = disk.snapshot()
    cloud.write(disk.volume, disk.image, 3 * MIB)
    second.manager.delete(second.id)
    disk.deleted(second, attached=False)
    disk.attach()
    disk.check()
    disk.delete(third)
    disk.check()
    disk.delete(first)
    disk.check()
    disk.detach()
    # The volume's own file is gone, and another one is the base.
    fourth = disk.snapshot()
    cloud.write(disk.volume, disk.image, 4 * MIB)
    clone = cloud.create(1, source_volid=disk.volume.id)
    cloud.same(clone, disk.image)
    fourth.manager.delete(fourth.id)
    disk.deleted(fourth, attached=False)
    cloud.same(disk.volume, disk.image)
    disk.attach()
    disk.check()
    cloud.delete(clone)
    disk.end()


def nova_refuses(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    snapshot = disk.snapshot()
    disk.write(0)
    for status in 403, 503:
        with nova.mood(refuse=status):
            refused = cloud.wait(disk.ask_for_snapshot(), "error")
            disk.check(copies=False)
            disk.write(MIB)
            snapshot.manager.delete(snapshot.id)
            cloud.wait(snapshot, "error_deleting")
            disk.check(copies=False)
        # What never was a snapshot needs no Nova to be deleted.
        with nova.mood(fail=True):
            cloud.delete(refused)
        disk.check(copies=False)
        cloud.client.volume_snapshots.reset_state(snapshot.id, "available")
        disk.check()
    disk.delete(snapshot)
    disk.check()
    disk.end()


def nova_fails(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    snapshot = disk.snapshot()
    disk.write(0)
    with nova.mood(fail=True):
        failed = cloud.wait(disk.ask_for_snapshot(), "error")
        disk.write(MIB)
        snapshot.manager.delete(snapshot.id)
        cloud.wait(snapshot, "error_deleting")
    cloud.delete(failed)
    disk.check(copies=False)
    # A service that leaves the report of the last time in the row takes Nova for done before it is.
    with nova.mood(before=lambda: time.sleep(3)):
        disk.delete(snapshot, force=True)
    disk.check()
    disk.end()


def nova_says_one_thing_and_does_another(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    with nova.mood(answer=500):
        snapshot = disk.snapshot()
        disk.write(0)
        disk.check()
        disk.delete(snapshot)
        disk.check()
    # The row has Nova's error in it until the service has seen for itself.
    with nova.mood(lie=True):
        snapshot = disk.taken(disk.ask_for_snapshot(), bad=())
        disk.write(MIB)
        disk.check()
        snapshot.manager.delete(snapshot.id)
        disk.deleted(snapshot, bad=())
        disk.check()
    disk.end()


def report_is_lost(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    with nova.mood(silent=True):
        snapshot = disk.ask_for_snapshot()
        nova.wait_for(snapshot.id, "create")
    # Somebody loses patience. The server writes into the overlay all the same, and must find it when it starts again.
    cloud.client.volume_snapshots.reset_state(snapshot.id, "error")
    disk.is_in_chain(snapshot)
    disk.write(MIB)
    cloud.until(lambda: disk.connection()["name"] == disk.chain[-1], "the attachment does not name the overlay")
    disk.check(copies=False)
    disk.restart()
    disk.delete(snapshot)
    disk.check()
    disk.end()


def nova_forgets_who_we_are(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    snapshot = disk.snapshot()
    nova.tokens.clear()
    second = disk.snapshot()
    nova.tokens.clear()
    disk.delete(snapshot)
    disk.delete(second)
    disk.check()
    disk.end()


def nova_is_slow(cloud, nova, scratch):
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    with nova.mood(before=lambda: time.sleep(3), after=lambda: time.sleep(3)):
        snapshot = disk.ask_for_snapshot()
        other = cloud.create()
        cloud.until(lambda: nova.asked(snapshot.id, "create"), "Nova was never asked")
        cloud.check(cloud.client.volume_snapshots.get(snapshot.id).status == "creating", "it is still being made")
        # Were the server to start now, it would be told to take for qcow2 only what is no bytes of the guest's.
        info = disk.connection()
        cloud.check((info["name"] == disk.chain[0]) == (info["format"] == "raw"), "a server would be given %s" % info)
        disk.taken(snapshot)
        disk.check()
        disk.delete(snapshot)
        disk.check()
    cloud.delete(other)
    disk.end()


def service_dies(cloud, nova, scratch):
    """Whoever runs this kills and starts the service where it says so, and answers with a line when that is done."""

    def please(what):
        print(json.dumps({"please": what}), flush=True)
        cloud.check(sys.stdin.readline().strip() == "done", "the service was to %s" % what)

    def dies(disk, kind, request, nova_goes_on_without):
        at_work, go_on = threading.Event(), threading.Event()

        def before():
            at_work.set()
            go_on.wait(cloud.timeout)

        with nova.mood(before=before):
            snapshot = request()
            cloud.check(at_work.wait(cloud.timeout), "Nova was never asked to %s" % kind)
        please("die")
        if nova_goes_on_without:
            go_on.set()
            nova.wait_for(snapshot.id, kind)
        please("live")
        go_on.set()
        return snapshot

    def request_delete(snapshot):
        snapshot.manager.delete(snapshot.id)
        return snapshot

    for nova_goes_on_without in True, False:
        disk = Disk(cloud, nova, scratch)
        disk.write(0)
        kept = disk.snapshot()
        disk.write(0)
        snapshot = disk.taken(dies(disk, "create", disk.ask_for_snapshot, nova_goes_on_without))
        asked = nova.asked(snapshot.id, "create")
        cloud.check(len(asked) == 1 and asked[0].error is None, asked)
        disk.write(MIB)
        disk.check()
        # One is committed, the other one is pulled.
        for doomed in kept, snapshot:
            disk.deleted(dies(disk, "delete", lambda: request_delete(doomed), nova_goes_on_without))
            nova.wait_for(doomed.id, "delete")
            asked = nova.asked(doomed.id, "delete")
            cloud.check(len(asked) == 1 and asked[0].error is None, asked)
            disk.check()
        disk.end()
    # A service that comes back sees by the files that the server is done, and the snapshot may be gone before cinder-api is told.
    nova.unheard = [(kind, error) for kind, error in nova.unheard if (kind, type(error)) != ("delete", NotFound)]


def no_nova(cloud, nova, scratch):
    """The service has not been told where Nova is."""
    disk = Disk(cloud, nova, scratch)
    disk.write(0)
    started = time.monotonic()
    failed = cloud.wait(disk.ask_for_snapshot(), "error")
    cloud.check(time.monotonic() - started < 30, "it does not fail at once")
    disk.check()
    disk.write(0)
    cloud.delete(failed)
    disk.check()
    disk.detach()
    snapshot = disk.snapshot()
    disk.attach()
    disk.write(MIB)
    snapshot.manager.delete(snapshot.id)
    cloud.wait(snapshot, "error_deleting")
    disk.check(copies=False)
    cloud.client.volume_snapshots.reset_state(snapshot.id, "available")
    disk.check()
    cloud.check(not nova.logins and not nova.jobs, "Nova was asked")
    disk.end()


SCENES = [one_snapshot, in_several_orders, detached_and_attached_again, nova_refuses, nova_fails,
          nova_says_one_thing_and_does_another, report_is_lost, nova_forgets_who_we_are, nova_is_slow]
# Each needs a service of its own kind.
OTHERS = [service_dies, no_nova]


def main():
    cloud = Cloud(sys.argv[1], sys.argv[2])
    reporter = Cloud(sys.argv[1], sys.argv[2])
    nova = FakeNova(int(sys.argv[3]), reporter.client.volume_snapshots.update_snapshot_status)
    wanted = sys.argv[4:] or [scene.__name__ for scene in SCENES]
    with tempfile.TemporaryDirectory(prefix="scoria-images-") as scratch:
        for scene in SCENES + OTHERS:
            if scene.__name__ in wanted:
                print("scene", scene.__name__, file=sys.stderr, flush=True)
                scene(cloud, nova, scratch)
    nova.stop()
    cloud.check(not nova.astray, "requests to no Nova: %s" % nova.astray)
    cloud.check(not nova.unheard, "reports that cinder-api did not take: %s" % nova.unheard)
    cloud.share_is_empty()
    cloud.report(jobs=len(nova.jobs))


if __name__ == "__main__":
    main()

"""python-cinderclient against a cloud without authentication, and the files of its NFS share beside it.

Every scenario in this directory drives the service through the client, as a user would, and looks at the share's files
to see whether the data is right, byte for byte.
"""
import glob
import json
import os
import subprocess
import tempfile
import time
import uuid

from cinderclient import client, exceptions
from cinderclient.contrib import noauth
from keystoneauth1 import session

PROJECT = "11111111111111111111111111111111"
MIB = 1 << 20
GIB = 1 << 30
CONNECTOR = {
    "initiator": "iqn.1993-08.org.debian:01:scoria",
    "ip": "127.0.0.1",
    "platform": "x86_64",
    "host": "computehost",
    "do_local_attach": False,
    "os_type": "linux",
    "multipath": False,
    "mountpoint": "/dev/vdb",
}
# A refusal that a scenario provokes, and what it looks like to the client.
Refused = exceptions.ClientException
NotFound = exceptions.NotFound


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError("%s: %s%s" % (" ".join(command), done.stdout, done.stderr))
    return done.stdout


class Cloud:
    """One API endpoint and one share."""

    def __init__(self, url, share, timeout=120):
        auth = noauth.CinderNoAuthPlugin("admin", PROJECT, roles=["admin"], endpoint=url)
        self.client = client.Client("3.71", session=session.Session(auth=auth))
        self.share = share
        self.timeout = timeout
        self.checks = 0

    def check(self, holds, what):
        self.checks += 1
        assert holds, what

    # Waiting for what the service does after the answer.

    def wait(self, resource, wanted="available", bad=("error", "error_deleting", "error_extending")):
        """The resource, as soon as its status is the wanted one."""
        end = time.monotonic() + self.timeout
        while True:
            resource = resource.manager.get(resource.id)
            if resource.status == wanted:
                return resource
            stuck = resource.status in bad and wanted not in bad
            assert not stuck and time.monotonic() < end, "%s %s is %s, not %s" % (
                type(resource).__name__, resource.id, resource.status, wanted)
            time.sleep(0.1)

    def wait_gone(self, resource, bad=("error_deleting",)):
        end = time.monotonic() + self.timeout
        while True:
            try:
                status = resource.manager.get(resource.id).status
            except NotFound:
                return
            assert status not in bad and time.monotonic() < end, "%s %s is %s, not gone" % (
                type(resource).__name__, resource.id, status)
            time.sleep(0.1)

    def until(self, holds, what):
        end = time.monotonic() + self.timeout
        while not holds():
            assert time.monotonic() < end, what
            time.sleep(0.1)

    def refuses(self, code, call, *args, **kwargs):
        try:
            call(*args, **kwargs)
        except Refused as refusal:
            self.check(refusal.code == code, "%s, not %s: %s" % (refusal.code, code, refusal))
            return str(refusal)
        raise AssertionError("%s%s was not refused" % (call.__name__, args))

    # Requests with their waiting.

    def create(self, size=1, **kwargs):
        return self.wait(self.client.volumes.create(size, **kwargs))

    def snapshot(self, volume, **kwargs):
        return self.wait(self.client.volume_snapshots.create(volume.id, **kwargs))

    def delete(self, *resources, **kwargs):
        for resource in resources:
            resource.manager.delete(resource.id, **kwargs)
        for resource in resources:
            self.wait_gone(resource)

    # The share's files.

    def path(self, name):
        return os.path.join(self.share, name)

    def files(self, volume_id):
        return sorted(os.path.basename(name) for name in glob.glob(self.path("volume-%s*" % volume_id)))

    def active(self, volume):
        """The file that a guest would write to."""
        try:
            with open(self.path("volume-%s.info" % volume.id)) as info:
                return self.path(json.load(info)["active"])
        except FileNotFoundError:
            return self.path("volume-%s" % volume.id)

    def write(self, volume, image, offset, length=64 * 1024):
        """Writes random bytes to the volume, as its guest would, and to the image of what should be in it."""
        active = self.active(volume)
        fill(active, file_format(active), image, offset, length)

    def same(self, volume, image, size=None):
        """Byte for byte what it should be, and as large as it should be."""
        active = self.active(volume)
        size = size or volume.size
        found = json.loads(run("qemu-img", "info", "--output=json", active))["virtual-size"]
        self.check(found == size * GIB, "%s has %d bytes, not %d GiB" % (active, found, size))
        run("qemu-img", "compare", "-f", file_format(active), "-F", "raw", active, image.path)
        self.checks += 1

    def chains_are_sound(self):
        for name in os.listdir(self.share):
            path = self.path(name)
            if os.path.isfile(path) and not name.endswith(".info") and file_format(path) == "qcow2":
                run("qemu-img", "check", "-f", "qcow2", path)
                self.checks += 1

    def share_is_empty(self, beside_python=False):
        left = [name for name in os.listdir(self.share) if not name.startswith(".")]
        if beside_python:
            # Python does not know of Scoria's locks on the share: where it deletes a volume of Scoria's, that one stays.
            left = [name for name in left if not name.endswith(".scoria-lock")]
        self.check(not left, "left over on the share: %s" % left)

    def report(self, **more):
        print(json.dumps(dict(checks=self.checks, **more)))


class Image:
    """What should be in a volume: a sparse file of raw bytes."""

    def __init__(self, directory, size=1):
        self.directory = directory
        self.path = os.path.join(directory, uuid.uuid4().hex)
        with open(self.path, "wb") as file:
            file.truncate(size * GIB)

    def write(self, offset, data):
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def copy(self, size=None):
        copy = Image(self.directory, 0)
        run("cp", "--sparse=always", self.path, copy.path)
        if size:
            os.truncate(copy.path, size * GIB)
        return copy


def fill(disk, disk_format, image, offset, length):
    """Writes the same random bytes to a disk that QEMU can open and to the image of what should be on it."""
    data = os.urandom(length)
    with tempfile.NamedTemporaryFile() as source:
        source.write(data)
        source.flush()
        run("qemu-io", "-f", disk_format, "-c", "write -s %s %d %d" % (source.name, offset, length), disk)
    image.write(offset, data)


def file_format(path):
    """Of files on the share, which only the service and these scenarios write."""
    with open(path, "rb") as file:
        return "qcow2" if file.read(4) == b"QFI\xfb" else "raw"

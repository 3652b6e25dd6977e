"""Unmodified python-cinderclient as a library, without authentication: every call that stand-alone mode promises."""

import json
import sys
import time

from cinderclient import client
from cinderclient import exceptions
from cinderclient.contrib import noauth
from keystoneauth1 import session

URL = sys.argv[1]


def connect(version):
    auth = noauth.CinderNoAuthPlugin("tester", "library", endpoint=URL + "/v3")
    return client.Client(version, session=session.Session(auth=auth))


def until(get, status):
    for _ in range(200):
        try:
            now = get().status
        except exceptions.NotFound:
            now = "gone"
        if now == status:
            return
        time.sleep(0.05)
    raise SystemExit("still %s, not %s" % (now, status))


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except exceptions.ClientException as error:
        assert error.code == code, error
        return str(error)
    raise SystemExit("%s was not refused" % call)


def work(cinder):
    volume = cinder.volumes.create(size=2, name="data", metadata={"a": "b"})
    until(lambda: cinder.volumes.get(volume.id), "available")
    volume = cinder.volumes.get(volume.id)
    assert (volume.size, volume.name, volume.metadata) == (2, "data", {"a": "b"})
    assert volume.volume_type == "__DEFAULT__"
    assert cinder.volumes.list(search_opts={"name": "data"})[0].id == volume.id
    cinder.volumes.update(volume, name="renamed", description="text")
    assert cinder.volumes.get(volume.id).name == "renamed"
    cinder.volumes.set_metadata(volume, {"c": "d"})
    cinder.volumes.delete_metadata(volume, ["a"])
    assert cinder.volumes.get(volume.id).metadata == {"c": "d"}
    cinder.volumes.extend(volume, 3)
    until(lambda: cinder.volumes.get(volume.id), "available")
    assert cinder.volumes.get(volume.id).size == 3
    refused(400, cinder.volumes.extend, volume, 1)

    snapshot = cinder.volume_snapshots.create(volume.id, name="shot")
    until(lambda: cinder.volume_snapshots.get(snapshot.id), "available")
    assert [one.id for one in cinder.volume_snapshots.list()] == [snapshot.id]
    message = refused(400, cinder.volumes.delete, volume)
    assert "have snapshots" in message, message
    child = cinder.volumes.create(size=3, snapshot_id=snapshot.id)
    clone = cinder.volumes.create(size=4, source_volid=volume.id)
    for one in (child, clone):
        until(lambda: cinder.volumes.get(one.id), "available")
    cinder.volume_snapshots.delete(snapshot)
    until(lambda: cinder.volume_snapshots.get(snapshot.id), "gone")

    limits = {limit.name: limit.value for limit in cinder.limits.get().absolute}
    assert limits["maxTotalVolumes"] == 10 and limits["totalVolumesUsed"] == 3, limits
    assert cinder.services.list()[0].host == "alone@store"
    assert cinder.volume_types.default().name == "__DEFAULT__"
    assert cinder.quotas.get("library").volumes == 10
    assert len(cinder.volumes.list(limit=2, sort="size:asc")) == 2

    for one in (volume, child, clone):
        cinder.volumes.delete(one)
        until(lambda: cinder.volumes.get(one.id), "gone")
    refused(404, cinder.volumes.get, volume.id)


def attach(cinder):
    volume = cinder.volumes.create(size=1)
    until(lambda: cinder.volumes.get(volume.id), "available")
    attachment = cinder.attachments.create(volume.id, None, "72ab4d3b-9a1c-4a5e-9f4e-3b1f0f8c1f11", mode="rw")
    assert cinder.volumes.get(volume.id).status == "reserved"
    attachment_id = attachment["id"]
    cinder.attachments.update(attachment_id, {"host": "compute1", "ip": "127.0.0.1"})
    shown = cinder.attachments.show(attachment_id)
    assert shown.connection_info["driver_volume_type"] == "nfs", shown.connection_info
    cinder.attachments.complete(attachment_id)
    assert cinder.volumes.get(volume.id).status == "in-use"
    refused(400, cinder.volumes.delete, volume)
    cinder.attachments.delete(attachment_id)
    assert cinder.volumes.get(volume.id).status == "available"
    cinder.volumes.delete(volume)
    until(lambda: cinder.volumes.get(volume.id), "gone")


def attach_as_before(cinder):
    volume = cinder.volumes.create(size=1)
    until(lambda: cinder.volumes.get(volume.id), "available")
    cinder.volumes.reserve(volume)
    refused(400, cinder.volumes.attach, volume, None, "/taken", host_name="compute1")
    refused(400, cinder.volumes.attach, volume, None, "/dev/vdb", mode="wo", host_name="compute1")
    cinder.volumes.attach(volume, "72ab4d3b-9a1c-4a5e-9f4e-3b1f0f8c1f11", "/dev/vdb")
    assert cinder.volumes.get(volume.id).status == "in-use"
    cinder.volumes.begin_detaching(volume)
    cinder.volumes.detach(volume)
    assert cinder.volumes.get(volume.id).status == "available"
    cinder.volumes.update_readonly_flag(volume, True)
    message = refused(400, cinder.volumes.attach, volume, None, "/dev/vdb", host_name="compute1")
    assert "Invalid attaching mode 'rw'" in message, message
    cinder.volumes.attach(volume, None, "/dev/vdb", mode="ro", host_name="compute1")
    cinder.volumes.detach(volume)
    cinder.volumes.delete(volume)
    until(lambda: cinder.volumes.get(volume.id), "gone")


def quotas(cinder):
    changed = cinder.quotas.update("elsewhere", volumes=3, gigabytes=-1, volumes___DEFAULT__=2)
    assert (changed.volumes, changed.gigabytes) == (3, -1), changed
    shown = cinder.quotas.get("elsewhere", usage=True)
    assert (shown.volumes["limit"], shown.volumes___DEFAULT__["limit"]) == (3, 2), shown
    assert cinder.quotas.get("library").volumes == 10
    volume = cinder.volumes.create(size=2)
    message = refused(400, cinder.quotas.update, "library", gigabytes=1)
    assert "Current usage is 2 and the requested limit is 1" in message, message
    for wrong in ({"volumes": -2}, {"volumes": "many"}, {"volumes": 2**31}, {"nonsense": 1}, {"volumes_none": 1}):
        refused(400, cinder.quotas.update, "library", **wrong)
    cinder.quotas.update("library", volumes=1)
    refused(413, cinder.volumes.create, size=1)
    cinder.quotas.delete("library")
    assert cinder.quotas.get("library").volumes == 10
    until(lambda: cinder.volumes.get(volume.id), "available")
    cinder.volumes.delete(volume)
    until(lambda: cinder.volumes.get(volume.id), "gone")


for version in ("3.0", "3.44", "3.71"):
    work(connect(version))
    attach_as_before(connect(version))
quotas(connect("3.71"))
attach(connect("3.71"))
print(json.dumps("done"))

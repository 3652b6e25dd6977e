"""Unmodified openstacksdk without Keystone, as a standalone service is configured: with `auth_type: none` and an endpoint, or
with `auth_type: admin_token` when a token is given too."""

import json
import sys
import time

import openstack
from openstack import exceptions

URL = sys.argv[1]


def until(get, status):
    for _ in range(200):
        try:
            now = get().status
        except exceptions.NotFoundException:
            now = "gone"
        if now == status:
            return
        time.sleep(0.05)
    raise SystemExit("still %s, not %s" % (now, status))


if len(sys.argv) > 2:
    auth = {"auth_type": "admin_token", "auth": {"endpoint": URL + "/v3", "token": sys.argv[2]}}
else:
    auth = {"auth_type": "none", "endpoint": URL + "/v3"}
cloud = openstack.connect(
    load_yaml_config=False, load_envvars=False, block_storage_endpoint_override=URL + "/v3",
    block_storage_api_version="3", **auth)
block = cloud.block_storage

volume = block.create_volume(name="data", size=2, metadata={"a": "b"})
volume = block.wait_for_status(volume, "available", interval=0.1, wait=30)
assert (volume.size, volume.metadata, volume.is_bootable) == (2, {"a": "b"}, False), volume
assert [one.id for one in block.volumes(details=True)] == [volume.id]
assert block.find_volume("data").id == volume.id
block.update_volume(volume, name="renamed")
assert block.get_volume(volume).name == "renamed"
block.set_volume_metadata(volume, c="d")
block.extend_volume(volume, 3)
until(lambda: block.get_volume(volume), "available")
assert block.get_volume(volume).size == 3

snapshot = block.create_snapshot(volume_id=volume.id, name="shot")
snapshot = block.wait_for_status(snapshot, "available", interval=0.1, wait=30)
assert [one.id for one in block.snapshots()] == [snapshot.id]
try:
    block.delete_volume(volume)
    raise SystemExit("a volume with a snapshot was deleted")
except exceptions.BadRequestException as error:
    assert "have snapshots" in str(error), error
clone = block.create_volume(snapshot_id=snapshot.id, size=3)
clone = block.wait_for_status(clone, "available", interval=0.1, wait=30)

attachment = block.create_attachment(clone, instance="72ab4d3b-9a1c-4a5e-9f4e-3b1f0f8c1f11", connector=None)
attachment = block.update_attachment(attachment, connector={"host": "compute1"})
block.complete_attachment(attachment)
assert block.get_volume(clone).status == "in-use"
block.delete_attachment(attachment)
assert block.get_volume(clone).status == "available"

assert block.get_limits().absolute.max_total_volumes == 10
assert [one.host for one in block.services()] == ["alone@store"]
assert [one.name for one in block.types()] == ["__DEFAULT__"]
assert [one.name for one in block.availability_zones()] == ["nova"]
assert list(block.extensions()) == []

block.delete_snapshot(snapshot)
until(lambda: block.get_snapshot(snapshot), "gone")
for one in (clone, volume):
    block.delete_volume(one)
    until(lambda: block.get_volume(one), "gone")
print(json.dumps("done"))

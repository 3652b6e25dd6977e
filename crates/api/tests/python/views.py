"""The fields that Cinder's own view builders show of a volume, a snapshot and an attachment, in every microversion."""

import datetime
import json
import warnings

warnings.simplefilter("ignore")

from cinder import context  # noqa: E402
from cinder import objects  # noqa: E402

objects.register_all()

from cinder.api.openstack import api_version_request  # noqa: E402
from cinder.api.v3.views import attachments  # noqa: E402
from cinder.api.v3.views import snapshots  # noqa: E402
from cinder.api.v3.views import volumes  # noqa: E402

ID = "3f2b0b4e-7a33-4f0c-9b60-0f1c5d0a1e11"


class Request:
    application_url = "http://localhost/v3"
    url = "http://localhost/v3/volumes"
    headers = {}

    def __init__(self, minor):
        self.api_version_request = api_version_request.APIVersionRequest("3.%d" % minor)
        self.environ = {"cinder.context": administrator}


administrator = context.RequestContext("tester", "project", is_admin=True)
now = datetime.datetime(2026, 11, 22)
volume = objects.Volume(
    context=administrator, id=ID, size=1, status="available", display_name="data", display_description=None, metadata={},
    volume_attachment=objects.VolumeAttachmentList(objects=[]), volume_type=objects.VolumeType(id=ID, name="of"),
    volume_type_id=ID, bootable=False, multiattach=False, use_quota=True, shared_targets=None, service_uuid=None,
    cluster_name=None, provider_id=None, group_id=None, encryption_key_id=None, created_at=now, updated_at=now)
snapshot = objects.Snapshot(
    context=administrator, id=ID, volume_id=ID, volume_size=1, status="available", metadata={}, use_quota=True,
    user_id="tester", group_snapshot_id=None, display_name=None, display_description=None, created_at=now, updated_at=now)
attachment = objects.VolumeAttachment(
    context=administrator, id=ID, volume_id=ID, attach_status="reserved", instance_uuid=None, attach_time=None,
    detach_time=None, attach_mode="null", connection_info={})

newest = int(api_version_request._MAX_API_VERSION.split(".")[1])
requests = [Request(minor) for minor in range(newest + 1)]
print(json.dumps({
    "volumes": [sorted(volumes.ViewBuilder().detail(request, volume)["volume"]) for request in requests],
    "snapshots": [sorted(snapshots.ViewBuilder().detail(request, snapshot)["snapshot"]) for request in requests],
    "attachments": sorted(attachments.ViewBuilder.detail(attachment)["attachment"]),
}))

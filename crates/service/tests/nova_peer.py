"""Cinder's own client of Nova on the [nova] of a configuration file: FILE (create|delete)_volume_snapshot ID INFO, in which INFO is
JSON. Prints "done" or the name of the exception."""
import json
import sys

from oslo_config import cfg

from cinder.common import config  # noqa: F401  registers auth_strategy
from cinder.compute import nova
from cinder import context

file, action, identifier, info = sys.argv[1:]
cfg.CONF(["--config-file", file], project="cinder")
# It looks at the database when it is made, and wants nothing of it.
cfg.CONF.set_override("connection", "sqlite://", "database")
request = context.RequestContext("u", "p", is_admin=True, global_request_id="req-7ad0f8f5-1c1e-4f0c-8f0e-4d4b3ad6a201")
try:
    getattr(nova.API(), action)(request, identifier, json.loads(info))
    print(json.dumps("done"))
except Exception as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))

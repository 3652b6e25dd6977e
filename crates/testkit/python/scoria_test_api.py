"""cinder-api for gunicorn, configured by CINDER_API_ARGS.

The WSGI entry point of cinder takes its options from sys.argv, which under gunicorn are gunicorn's own.
"""
import os
import sys

sys.argv = ["cinder-api"] + os.environ["CINDER_API_ARGS"].split()

from cinder.wsgi.api import application  # noqa: E402,F401
from cinder.volume import api as volume_api  # noqa: E402


def _every_caller_is_a_service(_context):
    return True


# Without authentication nobody carries a service token, so a detach would be referred to Nova, which is not here.
volume_api.API.is_service_request = staticmethod(_every_caller_is_a_service)

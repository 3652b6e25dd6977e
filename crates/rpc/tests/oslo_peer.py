# A Python service's view of what we send: one JSON question per line on stdin, one JSON answer per line on stdout.
import json
import sys

from oslo_config import cfg

from cinder import context
from cinder import exception  # noqa: F401  (the module that failures name)
from cinder import objects
from cinder.objects import base
from oslo_messaging._drivers import amqp
from oslo_messaging._drivers import common

objects.register_all()
cfg.CONF([], project="cinder", default_config_files=[])


def request(question):
    """What an RPC server makes of a body."""
    message = common.deserialize_msg(json.loads(question["body"]))
    ctxt = context.RequestContext.from_dict(amqp.unpack_context(message).to_dict())
    serializer = base.CinderObjectSerializer()
    args = {name: serializer.deserialize_entity(ctxt, value) for name, value in message["args"].items()}
    return {
        "method": message["method"],
        "version": message["version"],
        "unique_id": message["_unique_id"],
        "user_id": ctxt.user_id,
        "project_id": ctxt.project_id,
        "is_admin": ctxt.is_admin,
        "request_id": ctxt.request_id,
        "classes": {name: type(value).__name__ for name, value in args.items()},
        "args": {name: serializer.serialize_entity(ctxt, value) for name, value in args.items()},
    }


def reply(question):
    """What an RPC client makes of a reply."""
    message = common.deserialize_msg(json.loads(question["body"]))
    answer = {"ending": message["ending"], "msg_id": message["_msg_id"], "result": message["result"]}
    if message["failure"]:
        error = common.deserialize_remote_exception(message["failure"], ["cinder.exception"])
        answer["class"] = type(error).__name__
        answer["module"] = type(error).__module__
        answer["message"] = getattr(error, "msg", None) or str(error.args[0])
        answer["code"] = getattr(error, "code", None)
        answer["kwargs"] = getattr(error, "kwargs", None)
    return answer


def notification(question):
    """What a notification listener makes of a body."""
    message = common.deserialize_msg(json.loads(question["body"]))
    ctxt = amqp.unpack_context(message).to_dict()
    wanted = ("event_type", "publisher_id", "priority", "payload")
    return {"user_id": ctxt["user_id"], "auth_token": ctxt["auth_token"], **{key: message[key] for key in wanted}}


for line in sys.stdin:
    question = json.loads(line)
    handler = {"request": request, "reply": reply, "notification": notification}[question["kind"]]
    print(json.dumps(handler(question)), flush=True)

"""A real oslo.messaging peer for the AMQP tests.

peer.py client URL            reads JSON lines (what to send), prints one JSON line for each (what came back)
peer.py server URL TOPIC NAME serves calls, prints what it got
peer.py listener URL          prints notifications
"""
import json
import sys
import threading

from cinder import context as cinder_context
from cinder import exception
from cinder import rpc as cinder_rpc
from oslo_config import cfg
import oslo_messaging as messaging

MODE, URL = sys.argv[1:3]
ALLOWED = ["cinder.exception"]
lock = threading.Lock()


def say(**what):
    with lock:
        print(json.dumps(what), flush=True)


def configuration():
    # The global one: oslo.messaging registers its tracing options there only.
    cfg.CONF([], project="cinder", default_config_files=[])
    return cfg.CONF


def client():
    transport = messaging.get_rpc_transport(configuration(), url=URL, allowed_remote_exmods=ALLOWED)
    serializer = cinder_rpc.RequestContextSerializer(messaging.NoOpSerializer())
    context = cinder_context.RequestContext("a-user", "a-project", is_admin=False)
    say(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        target = messaging.Target(topic=order["topic"], server=order.get("server"), fanout=order.get("fanout"),
                                  version="3.0")
        rpc = messaging.get_rpc_client(transport, target, serializer=serializer, timeout=order.get("timeout", 20),
                                       call_monitor_timeout=order.get("monitor"))
        try:
            send = rpc.call if order.get("call") else rpc.cast
            say(result=send(context, order["method"], **order.get("args", {})))
        except Exception as error:
            kind = type(error)
            say(error=kind.__name__, module=kind.__module__, message=str(error), known=isinstance(
                error, exception.VolumeNotFound))


class Endpoint:
    target = messaging.Target(version="3.20")

    def echo(self, ctxt, **args):
        say(method="echo", args=args, user_id=ctxt.user_id)
        return {"echo": args}

    def missing(self, ctxt, volume_id):
        raise exception.VolumeNotFound(volume_id=volume_id)

    def wrong(self, ctxt):
        raise KeyError("wrong")


def server():
    transport = messaging.get_rpc_transport(configuration(), url=URL, allowed_remote_exmods=ALLOWED)
    serializer = cinder_rpc.RequestContextSerializer(messaging.NoOpSerializer())
    serving = messaging.get_rpc_server(transport, messaging.Target(topic=sys.argv[3], server=sys.argv[4]), [Endpoint()],
                                       executor="threading", serializer=serializer)
    serving.start()
    say(ready=True)
    sys.stdin.readline()


class Notified:
    def info(self, ctxt, publisher_id, event_type, payload, metadata):
        say(priority="INFO", publisher_id=publisher_id, event_type=event_type, payload=payload, context=ctxt)

    def error(self, ctxt, publisher_id, event_type, payload, metadata):
        say(priority="ERROR", publisher_id=publisher_id, event_type=event_type, payload=payload, context=ctxt)


def listener():
    transport = messaging.get_notification_transport(configuration(), url=URL)
    listening = messaging.get_notification_listener(transport, [messaging.Target(topic="notifications")], [Notified()],
                                                    executor="threading")
    listening.start()
    say(ready=True)
    sys.stdin.readline()


{"client": client, "server": server, "listener": listener}[MODE]()

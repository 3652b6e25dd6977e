"""A stand-in for Nova with libvirt, which cannot run where the tests do: what snapshots of attached volumes need of it.

Real is QEMU's block layer: a server is a `qemu-storage-daemon` that has a volume's files open as libvirt would have them
for a guest, QEMU's locks on them, and is told through QMP what libvirt would tell it for Nova's compute service
(nova/virt/libvirt/driver.py: `_volume_snapshot_create`, `_volume_snapshot_delete`). Real is the way of the reports, too:
through cinder-api. Made up are the identity service and Nova's API. They answer as the real ones do, and refuse what those
refuse (nova/api/openstack/compute/assisted_volume_snapshots.py).
"""
import contextlib
import dataclasses
import datetime
import http.server
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import uuid

import jsonschema

from cloud import fill, run

# What the service under test has to give to the identity service, and the region in which this Nova is.
USER, PASSWORD, PROJECT, DOMAIN, REGION = "cinder", "assist-me", "service", "Default", "RegionOne"
OTHER_REGION = "RegionTwo"

NAME = {"type": "string", "minLength": 1}


def strict(**properties):
    return {"type": "object", "properties": properties, "additionalProperties": False}


# Nova's own schema of a request to create.
CREATE_INFO = strict(snapshot_id=NAME, type={"type": "string", "enum": ["qcow2"]}, new_file=NAME, id=NAME)
CREATE_INFO["required"] = ["snapshot_id", "type", "new_file"]
CREATE = strict(snapshot=dict(strict(volume_id=NAME, create_info=CREATE_INFO), required=["volume_id", "create_info"]))
CREATE["required"] = ["snapshot"]


class QmpError(Exception):
    """QEMU refuses a command, or a job of its ends badly."""


class Qmp:
    """A client of QEMU's monitor: one JSON object a line, an answer to each command, events in between."""

    def __init__(self, path, timeout=30):
        self.one_at_a_time = threading.Lock()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        end = time.monotonic() + timeout
        while True:
            try:
                self.socket.connect(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        json.loads(self.lines.readline())
        self("qmp_capabilities")

    def __call__(self, command, arguments=None):
        message = {"execute": command}
        if arguments is not None:
            message["arguments"] = arguments
        with self.one_at_a_time:
            self.socket.sendall(json.dumps(message).encode() + b"\n")
            for line in self.lines:
                answer = json.loads(line)
                if "error" in answer:
                    raise QmpError("%s: %s" % (command, answer["error"]["desc"]))
                if "return" in answer:
                    return answer["return"]
        raise QmpError("%s: QEMU is gone" % command)

    def job(self, command, arguments):
        """Starts a job and waits for its end."""
        name = "job-%s" % uuid.uuid4()
        self(command, dict(arguments, **{"job-id": name, "auto-dismiss": False}))
        while True:
            job = next(job for job in self("query-jobs") if job["id"] == name)
            if job["status"] == "concluded":
                break
            time.sleep(0.02)
        self("job-dismiss", {"id": name})
        if "error" in job:
            raise QmpError("%s: %s" % (command, job["error"]))

    def close(self):
        self.lines.close()
        self.socket.close()


@dataclasses.dataclass
class Layer:
    """A file of a chain, and QEMU's node for it. The node of its bytes is called the same, and `-file`."""

    name: str
    node: str


class Server:
    """A running server with one volume. Its guest reads and writes the volume through NBD."""

    def __init__(self, path, file_format):
        self.share = os.path.dirname(path)
        self.directory = tempfile.mkdtemp(prefix="scoria-server-")
        self.numbers = itertools.count(1)
        self.busy = threading.Lock()
        monitor, disk = os.path.join(self.directory, "qmp"), os.path.join(self.directory, "nbd")
        # The shell kills QEMU when this process is gone: then the pipe ends without the word that we take leave with.
        self.process = subprocess.Popen(
            ["sh", "-c", 'd=$1; shift; "$@" & read -r leave || kill -s KILL $!; wait $!; rm -r "$d"', "sh", self.directory,
             "qemu-storage-daemon", "--chardev", "socket,id=qmp,server=on,wait=off,path=" + monitor, "--monitor", "chardev=qmp",
             "--nbd-server", "addr.type=unix,addr.path=" + disk],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.disk = "nbd+unix:///volume?socket=" + disk
        self.qmp = Qmp(monitor)
        # From the active file down.
        self.layers = []
        backing = None
        for name, layer_format in reversed(self._files(os.path.basename(path), file_format)):
            backing = self._open(name, layer_format, backing, read_only=name != os.path.basename(path))
            self.layers.insert(0, backing)
        # A guest's disk lets nobody else write, an export would. The filter says so for the guest, and so for the file's locks.
        self.qmp("blockdev-add", {
            "driver": "blkdebug", "node-name": "guest", "image": backing.node, "unshare-child-perms": ["write"]})
        export = {"type": "nbd", "id": "disk", "name": "volume", "node-name": "guest", "writable": True}
        self.qmp("block-export-add", export)

    def stop(self):
        self.qmp("quit")
        self.process.communicate(b"leave\n", timeout=30)
        self.qmp.close()

    # What libvirt does for Nova's compute service.

    def snapshot(self, new_file):
        """The guest's writes go to a new file from now on, which is there already."""
        with self._job_of_its_own():
            overlay = self._open(new_file, "qcow2", None, read_only=False)
            try:
                self.qmp("blockdev-snapshot", {"node": self.layers[0].node, "overlay": overlay.node})
            except QmpError:
                self._close([overlay])
                raise
            self.layers.insert(0, overlay)

    def pull(self, base):
        """Everything above `base` goes up into the active file; without `base` everything that there is."""
        with self._job_of_its_own():
            arguments, lowest = {"device": self.layers[0].node}, len(self.layers)
            if base is not None:
                lowest = self._find(base)
                arguments.update({"base-node": self.layers[lowest].node, "backing-file": base})
            self.qmp.job("block-stream", arguments)
            self._close(self.layers[1:lowest])
            del self.layers[1:lowest]

    def commit(self, top, base):
        """What lies above `base`, up to `top`, goes down into `base`."""
        with self._job_of_its_own():
            first, lowest = self._find(top), self._find(base)
            if not 0 < first < lowest:
                raise ValueError("libvirt commits no active file, and nothing upwards: %s into %s" % (top, base))
            nodes = {"top-node": self.layers[first].node, "base-node": self.layers[lowest].node}
            self.qmp.job("block-commit", dict(nodes, device="guest", **{"backing-file": base}))
            self._close(self.layers[first:lowest])
            del self.layers[first:lowest]

    # What the guest does.

    def write(self, image, offset, length=64 * 1024):
        fill(self.disk, "raw", image, offset, length)

    def same(self, image):
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", self.disk, image.path)

    def chain(self):
        """The names of its files, from the active one down."""
        return [layer.name for layer in self.layers]

    def _files(self, name, file_format):
        """The files of a chain and their formats, as their headers tell them. Libvirt does not guess formats either."""
        files = [(name, file_format)]
        while file_format == "qcow2":
            path = os.path.join(self.share, name)
            info = json.loads(run("qemu-img", "info", "-U", "-f", "qcow2", "--output=json", path))
            name, file_format = info.get("backing-filename"), info.get("backing-filename-format")
            if name is None:
                break
            if file_format is None or os.path.basename(name) != name:
                raise ValueError("%s stands on %s of format %s" % (path, name, file_format))
            files.append((name, file_format))
        return files

    def _open(self, name, file_format, backing, read_only):
        layer = Layer(name, "layer-%d" % next(self.numbers))
        self.qmp("blockdev-add", {
            "driver": "file", "node-name": layer.node + "-file", "filename": os.path.join(self.share, name),
            "locking": "on", "auto-read-only": True, "discard": "unmap"})
        node = {"driver": file_format, "node-name": layer.node, "file": layer.node + "-file", "read-only": read_only}
        if file_format == "qcow2":
            # Null means that QEMU does not look for itself what the header names.
            node["backing"] = backing and backing.node
        try:
            self.qmp("blockdev-add", node)
        except QmpError:
            self.qmp("blockdev-del", {"node-name": layer.node + "-file"})
            raise
        return layer

    def _close(self, layers):
        for layer in layers:
            self.qmp("blockdev-del", {"node-name": layer.node})
            self.qmp("blockdev-del", {"node-name": layer.node + "-file"})

    def _find(self, name):
        return self.chain().index(name)

    @contextlib.contextmanager
    def _job_of_its_own(self):
        if not self.busy.acquire(blocking=False):
            raise ValueError("the disk is in an active block job already")
        try:
            yield
        finally:
            self.busy.release()


def nothing():
    pass


@dataclasses.dataclass
class Mood:
    """How Nova treats the requests that come while it has it."""

    refuse: int = 0  # answered with this status, and nothing is done
    answer: int = 0  # answered with this status, and all is done nevertheless
    fail: bool = False  # the compute service reports an error, having done nothing
    lie: bool = False  # the compute service reports an error, having done it
    silent: bool = False  # the compute service never reports
    before: callable = nothing  # called before the work
    after: callable = nothing  # called after the work, before the report


@dataclasses.dataclass
class Job:
    """What Nova was asked for."""

    kind: str
    volume_id: str
    snapshot_id: str
    info: dict
    refused: bool = False
    error: Exception = None
    ended: threading.Event = dataclasses.field(default_factory=threading.Event)


class FakeNova:
    """Identity service and Nova on one port. `report` gets a snapshot's id and what cinder-api is to be told."""

    def __init__(self, port, report):
        self.port = port
        self.report = report
        self.servers = {}
        self.tokens = set()
        self.jobs = []
        self.logins = 0
        self.astray = []
        self.unheard = []
        self._mood = Mood()
        self.http = Http(("127.0.0.1", port), Handler)
        self.http.nova = self
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()
        for volume_id in list(self.servers):
            self.detach(volume_id)

    # The scenario's side.

    def attach(self, volume_id, path, file_format):
        self.servers[volume_id] = Server(path, file_format)
        return self.servers[volume_id]

    def detach(self, volume_id):
        self.servers.pop(volume_id).stop()

    @contextlib.contextmanager
    def mood(self, **how):
        self._mood = Mood(**how)
        try:
            yield
        finally:
            self._mood = Mood()

    def asked(self, snapshot_id, kind):
        """What it took on for this snapshot."""
        return [job for job in self.jobs if (job.snapshot_id, job.kind, job.refused) == (snapshot_id, kind, False)]

    def wait_for(self, snapshot_id, kind, timeout=120):
        """Waits until what it was asked for is over."""
        end = time.monotonic() + timeout
        while not any(job.ended.is_set() for job in self.asked(snapshot_id, kind)):
            assert time.monotonic() < end, "Nova does not come to an end with the %s of %s" % (kind, snapshot_id)
            time.sleep(0.05)

    # Nova's side.

    def take(self, kind, volume_id, snapshot_id, info):
        """Status of the answer to a valid request."""
        mood = self._mood
        job = Job(kind, volume_id, snapshot_id, info, refused=bool(mood.refuse))
        self.jobs.append(job)
        if mood.refuse:
            return mood.refuse
        threading.Thread(target=self._compute, args=(job, mood), daemon=True).start()
        return mood.answer

    def _compute(self, job, mood):
        done, failed = ("creating", "error") if job.kind == "create" else ("deleting", "error_deleting")
        try:
            mood.before()
            if mood.fail:
                raise RuntimeError("told to fail")
            server = self.servers.get(job.volume_id)
            if server is None:
                # A server that stopped in the meantime: Nova reports nothing.
                return
            self._do(server, job)
        except Exception as error:
            job.error = error
        try:
            mood.after()
            if not mood.silent:
                status = failed if job.error or mood.lie else done
                self.report(job.snapshot_id, {"status": status, "progress": "90%"})
        except Exception as error:
            # Nova logs it and goes on.
            self.unheard.append((job.kind, error))
        finally:
            job.ended.set()

    @staticmethod
    def _do(server, job):
        info = job.info
        if info["type"] != "qcow2":
            raise ValueError("unknown type")
        if job.kind == "create":
            server.snapshot(info["new_file"])
        elif info["merge_target_file"] is None:
            server.pull(info["file_to_merge"])
        else:
            server.commit(info["file_to_merge"], info["merge_target_file"])

    # The identity service's side.

    def login(self, body):
        """A token for the right user in the right project, or None."""
        self.logins += 1
        try:
            identity, scope = body["auth"]["identity"], body["auth"]["scope"]["project"]
            user = identity["password"]["user"]
            given = (identity["methods"], user["name"], user["domain"]["name"], user["password"],
                     scope["name"], scope["domain"]["name"])
        except (KeyError, TypeError):
            return None
        if given != (["password"], USER, DOMAIN, PASSWORD, PROJECT, DOMAIN):
            return None
        token = "token-%s" % uuid.uuid4()
        self.tokens.add(token)
        return token

    def token_body(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp = lambda time: time.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
        domain = {"id": "default", "name": DOMAIN}
        endpoints = []
        for region, interface in itertools.product((OTHER_REGION, REGION), ("admin", "internal", "public")):
            # Only one of the six is where Nova is.
            path = "v2.1" if (region, interface) == (REGION, "public") else "%s/%s/v2.1" % (region, interface)
            endpoints.append({
                "id": uuid.uuid4().hex, "interface": interface, "region": region, "region_id": region,
                "url": "http://127.0.0.1:%d/%s" % (self.port, path)})
        services = [
            {"id": "1", "type": "identity", "name": "keystone", "endpoints": []},
            {"id": "2", "type": "compute", "name": "nova", "endpoints": endpoints}]
        return {"token": {
            "methods": ["password"], "user": {"id": "u", "name": USER, "domain": domain, "password_expires_at": None},
            "project": {"id": "p", "name": PROJECT, "domain": domain}, "is_domain": False,
            "roles": [{"id": "r", "name": "admin"}, {"id": "s", "name": "service"}], "audit_ids": ["a"],
            "issued_at": stamp(now), "expires_at": stamp(now + datetime.timedelta(hours=1)), "catalog": services}}


class Http(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        # A killed client is none of our errors.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP for both."""

    protocol_version = "HTTP/1.1"
    KINDS = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 500: "computeFault"}

    def log_message(self, *args):
        pass

    def answer(self, status, body=None, **headers):
        text = "" if body is None else body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Type", "text/html" if isinstance(body, str) else "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def refuse(self, status, message):
        if status == 503:
            # Whoever stands in front of Nova says so, and not in Nova's words.
            return self.answer(503, "<html><body><h1>503 Service Unavailable</h1></body></html>")
        if status == 401:
            return self.answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": message}},
                               WWW_Authenticate="Keystone uri=\"http://127.0.0.1:%d/identity\"" % self.server.nova.port)
        return self.answer(status, {self.KINDS[status]: {"code": status, "message": message}})

    def respond(self):
        nova, url = self.server.nova, urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = (self.command, url.path.rstrip("/"))
        if request == ("GET", "/identity"):
            return self.answer(300, {"versions": {"values": [self.version()]}})
        if request == ("GET", "/identity/v3"):
            return self.answer(200, {"version": self.version()})
        if request == ("POST", "/identity/v3/auth/tokens"):
            try:
                token = nova.login(json.loads(body))
            except ValueError:
                return self.refuse(400, "not JSON")
            if token is None:
                return self.refuse(401, "The request you have made requires authentication.")
            return self.answer(201, nova.token_body(), X_Subject_Token=token, Vary="X-Auth-Token")
        collection = "/v2.1/os-assisted-volume-snapshots"
        if not url.path.startswith("/v2.1/"):
            nova.astray.append(self.path)
            return self.refuse(404, "The resource could not be found.")
        if self.headers.get("X-Auth-Token") not in nova.tokens:
            return self.refuse(401, "The request you have made requires authentication.")
        try:
            if request == ("POST", collection):
                return self.create(nova, body)
            if self.command == "DELETE" and os.path.dirname(url.path) == collection:
                return self.delete(nova, os.path.basename(url.path), urllib.parse.parse_qs(url.query))
        except (KeyError, ValueError, TypeError, jsonschema.ValidationError) as error:
            return self.refuse(400, str(error))
        nova.astray.append(self.path)
        return self.refuse(404, "The resource could not be found.")

    do_GET = do_POST = do_DELETE = respond

    def version(self):
        link = {"rel": "self", "href": "http://127.0.0.1:%d/identity/v3/" % self.server.nova.port}
        return {"id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z", "links": [link], "media-types": []}

    def create(self, nova, body):
        if self.headers.get("Content-Type", "").split(";")[0] != "application/json":
            raise ValueError("unsupported Content-Type")
        body = json.loads(body)
        jsonschema.validate(body, CREATE)
        volume_id, info = body["snapshot"]["volume_id"], body["snapshot"]["create_info"]
        self.check_attached(nova, volume_id)
        status = nova.take("create", volume_id, info["snapshot_id"], info)
        if status:
            return self.refuse(status, "told to")
        return self.answer(200, {"snapshot": {"id": info.get("id"), "volumeId": volume_id}})

    def delete(self, nova, snapshot_id, query):
        info = json.loads(query["delete_info"][0])
        self.check_attached(nova, info["volume_id"])
        status = nova.take("delete", info["volume_id"], snapshot_id, info)
        return self.refuse(status, "told to") if status else self.answer(204)

    @staticmethod
    def check_attached(nova, volume_id):
        if volume_id not in nova.servers:
            raise ValueError("No volume Block Device Mapping with id %s." % volume_id)

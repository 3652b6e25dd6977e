"""The real oslo.config and Cinder, asked by oslo_peer.rs: a question as JSON on standard input, the answer on standard output."""

import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
import unittest.mock
import warnings

warnings.simplefilter("ignore")


def rendered(value):
    """The way scoria_conf shows a value."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ",".join(rendered(item) for item in value)
    if isinstance(value, dict):
        return ",".join(f"{key}:{item}" for key, item in value.items())
    return str(value)


def ini(texts):
    """Each text as a list of [section, key, values], or None when it is refused."""
    from oslo_config import cfg

    answers = []
    for text in texts:
        with tempfile.NamedTemporaryFile("w", suffix=".conf", newline="") as file:
            file.write(text)
            file.flush()
            sections = {}
            try:
                cfg.ConfigParser(file.name, sections).parse()
            except cfg.ParseError:
                answers.append(None)
            else:
                answers.append([[s, k, v] for s, keys in sections.items() for k, v in keys.items()])
    return answers


def types(cases):
    """Each [type, text] as the value shown, or None when it is refused."""
    from oslo_config import types as t

    known = {
        "bool": t.Boolean(),
        "int": t.Integer(),
        "bounded": t.Integer(min=3, max=100),
        "float": t.Float(min=0.0, max=4.5),
        "port": t.Port(),
        "list": t.List(),
        "dict": t.Dict(),
        "host": t.HostAddress(),
        "choice": t.String(choices=["a", "b c"]),
    }
    answers = []
    for kind, text in cases:
        try:
            answers.append(rendered(known[kind](text)))
        except ValueError:
            answers.append(None)
    return answers


def interpolation(cases):
    """Each file's text with the value of [DEFAULT] x and [group] x, or None where it is refused."""
    from oslo_config import cfg

    answers = []
    for text in cases:
        with tempfile.NamedTemporaryFile("w", suffix=".conf", newline="") as file:
            file.write(text)
            file.flush()
            conf = cfg.ConfigOpts()
            for group in (None, "database"):
                conf.register_opts([cfg.StrOpt("connection"), cfg.StrOpt("connection_parameters")], group=group)
            conf.register_opts([cfg.StrOpt("host"), cfg.StrOpt("state_path", default="/s"), cfg.IntOpt("report_interval", default=10)])
            try:
                conf(["--config-file", file.name], project="x", default_config_dirs=[])
                answers.append(conf.database.connection_parameters)
            except (cfg.Error, RecursionError):
                answers.append(None)
    return answers


def cinder_values(question):
    """The values that the running volume service would see: {section: {option: value}}."""
    from cinder import objects

    objects.register_all()
    from cinder.cmd import volume as command
    from cinder.volume import configuration, driver, manager  # noqa: F401
    from cinder.volume.drivers import nfs, remotefs
    from importlib.metadata import entry_points
    from oslo_config import cfg
    from oslo_db import options as database_options

    conf = cfg.CONF
    # Libraries declare theirs when they are first used: now.
    for point in entry_points(group="oslo.config.opts"):
        if point.name in ("oslo.messaging", "oslo.service.service", "oslo.log", "oslo.concurrency", "oslo.db"):
            for group, options in point.load()():
                conf.register_opts(options, group=group)
    database_options.set_defaults(conf, connection="sqlite:///$state_path/cinder.sqlite")
    os.environ.update(question["environment"])
    arguments = [argument for file in question["files"] for argument in ("--config-file", file)]
    conf(arguments, project="cinder", default_config_files=[], default_config_dirs=[])
    backends = {}
    for name in filter(None, conf.enabled_backends):
        backend = configuration.Configuration(driver.volume_opts, config_group=name)
        backend.append_config_values(manager.volume_backend_opts)
        backend.append_config_values(remotefs.nas_opts)
        backend.append_config_values(nfs.nfs_opts)
        conf.register_opt(command.host_opt, group=name)
        backends[name] = backend
    answers = {}
    for section, option in question["options"]:
        try:
            if section in backends:
                own = option == "backend_host"
                value = getattr(conf[section] if own else backends[section], option)
            else:
                value = conf[option] if section == "DEFAULT" else conf[section][option]
            answers.setdefault(section, {})[option] = rendered(value)
        except cfg.NoSuchOptError:
            pass
    return answers


class Stub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Cloud libraries that some backup drivers import, and that are not installed."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("googleapiclient", "google", "oauth2client", "google_auth_httplib2", "boto3", "botocore", "swiftclient"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = unittest.mock.MagicMock()
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module):
        pass


def every_option(_):
    """Everything that Cinder and its libraries declare: {group: {option: facts}}."""
    from importlib.metadata import entry_points

    from oslo_config import cfg

    sys.meta_path.append(Stub())
    answers = {}
    for point in entry_points(group="oslo.config.opts"):
        for group, options in point.load()():
            group = str(getattr(group, "name", group) or "DEFAULT")
            for option in options:
                # keystoneauth gives Python's own type in place of oslo.config's.
                kind = cfg.types.String() if option.type is str else option.type
                choices = getattr(kind, "choices", None)
                default = option.default
                facts = {
                    "type": "Multi" if option.multi else type(kind).__name__,
                    "choices": None if choices is None else [str(choice) for choice in choices],
                    "min": getattr(kind, "min", None),
                    "max": getattr(kind, "max", None),
                    "default": rendered(default),
                    "secret": bool(option.secret),
                    "mutable": bool(option.mutable),
                    "deprecated": [[old.group or "", old.name] for old in option.deprecated_opts],
                }
                answers.setdefault(group, {})[option.dest] = facts
    return answers


if __name__ == "__main__":
    # What libraries print while they are imported is no answer.
    answer_to, sys.stdout = sys.stdout, sys.stderr
    question = json.load(sys.stdin)
    json.dump(globals()[sys.argv[1]](question), answer_to)

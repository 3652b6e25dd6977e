"""The real Python NfsDriver behind JSON lines on standard input and output.

Real: cinder.volume.drivers.nfs.NfsDriver with its base classes, cinder.image.image_utils, oslo.concurrency and qemu-img.
Faked: the rows (volumes and snapshots are plain objects; saving them does nothing), the lock service (one process, no
other taker), Nova, and the privilege daemon (its functions run in this process, which is root in its namespace).
"""

import contextlib
import json
import sys
from unittest import mock

real_stdout = sys.stdout
sys.stdout = sys.stderr

import cinder.privsep  # noqa: E402
from cinder import compute, context, coordination, objects  # noqa: E402
from cinder.volume import configuration  # noqa: E402
from cinder.volume.drivers import nfs  # noqa: E402
from oslo_config import cfg  # noqa: E402

ROWS = {}


class Volume:
    def __init__(self, row):
        self.__dict__.update(row)
        self._name_id = None
        self.name_id = self.id
        self.name = 'volume-' + self.id
        self.encryption_key_id = None
        self.volume_type_id = None
        self.volume_type = None
        self.metadata = {}
        self.obj_context = CONTEXT
        self.user_id = self.project_id = 'peer'
        ROWS[self.id] = self

    def __getitem__(self, key):
        return getattr(self, key)

    @contextlib.contextmanager
    def obj_as_admin(self):
        yield self

    def save(self):
        pass


class Snapshot:
    def __init__(self, context=None, **row):
        self.__dict__.update(row)
        self.encryption_key_id = None
        if not hasattr(self, 'id'):
            self.id = '0fade000-0000-4000-8000-' + self.volume_id[-12:]
        self.name = 'snapshot-' + self.id

    volume = property(lambda self: ROWS[self.volume_id])

    def __getitem__(self, key):
        return getattr(self, key)

    def create(self):
        pass

    save = destroy = create


def build(base, shares):
    cfg.CONF([], project='cinder')
    for option, value in {
        'nfs_mount_point_base': base, 'nfs_shares_config': shares, 'nfs_snapshot_support': True,
        'nas_secure_file_operations': 'false', 'nas_secure_file_permissions': 'false',
    }.items():
        cfg.CONF.set_override(option, value, group=configuration.SHARED_CONF_GROUP)
    cinder.privsep.sys_admin_pctxt.set_client_mode(False)
    driver = nfs.NfsDriver(configuration=configuration.Configuration([], config_group='backend_defaults'),
                           is_vol_db_empty=False)
    driver.do_setup(CONTEXT)
    return driver


def run(driver, request):
    operation = request['operation']
    volume = Volume(request['volume'])
    source = Volume(request['source']) if request.get('source') else None
    snapshot = Snapshot(**request['snapshot']) if request.get('snapshot') else None
    answer = None
    if operation == 'create_volume':
        answer = driver.create_volume(volume)
    elif operation == 'create_volume_from_snapshot':
        answer = driver.create_volume_from_snapshot(volume, snapshot)
    elif operation == 'create_cloned_volume':
        answer = driver.create_cloned_volume(volume, source)
    elif operation == 'delete_volume':
        driver.delete_volume(volume)
    elif operation == 'create_snapshot':
        driver.create_snapshot(snapshot)
    elif operation == 'delete_snapshot':
        driver.delete_snapshot(snapshot)
    elif operation == 'extend_volume':
        driver.extend_volume(volume, request['new_size'])
    elif operation == 'initialize_connection':
        answer = driver.initialize_connection(volume, {})
    elif operation == 'stats':
        answer = driver.get_volume_stats(refresh=True)
    return {'answer': answer, 'admin_metadata': volume.admin_metadata,
            'source_admin_metadata': source.admin_metadata if source else {}}


CONTEXT = context.get_admin_context()


def main():
    with contextlib.ExitStack() as fakes:
        fakes.enter_context(mock.patch.object(compute, 'API'))
        fakes.enter_context(mock.patch.object(coordination.Coordinator, 'get_lock'))
        fakes.enter_context(mock.patch.object(objects, 'Snapshot', Snapshot, create=True))
        volumes = mock.Mock()
        volumes.get_by_id = lambda _context, id: ROWS[id]
        fakes.enter_context(mock.patch.object(objects, 'Volume', volumes, create=True))
        driver = build(*sys.argv[1:3])
        for line in sys.stdin:
            try:
                reply = run(driver, json.loads(line))
            except Exception as error:
                import traceback
                traceback.print_exc()
                reply = {'error': type(error).__name__, 'message': str(error)}
            print(json.dumps(reply, default=str), file=real_stdout, flush=True)


main()

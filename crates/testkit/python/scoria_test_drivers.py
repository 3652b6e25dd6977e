"""Cinder's NFS driver, unchanged but for the declaration that it may run in a cluster, which the original lacks."""
from cinder import interface
from cinder.volume.drivers import nfs


@interface.volumedriver
class ClusteredNfsDriver(nfs.NfsDriver):
    SUPPORTS_ACTIVE_ACTIVE = True

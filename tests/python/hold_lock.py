"""A lock of Cinder's, taken by Cinder's own code on tooz.   hold_lock.py CONF NAME

Says {"held": true} when it has the lock, lets go at the next line of input, and says {"held": false}.
"""
import json
import sys

from oslo_config import cfg

from cinder.common import config  # noqa: F401  registers the options
from cinder import coordination


def main():
    cfg.CONF(["--config-file", sys.argv[1]], project="cinder")
    coordination.COORDINATOR.start()
    with coordination.COORDINATOR.get_lock(sys.argv[2]):
        print(json.dumps({"held": True}), flush=True)
        sys.stdin.readline()
    print(json.dumps({"held": False}), flush=True)


if __name__ == "__main__":
    main()

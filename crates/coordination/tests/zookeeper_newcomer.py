"""A tooz process that stops between the two steps of kazoo's acquire: URL NAME."""
import sys

from tooz import coordination

coordinator = coordination.get_coordinator(sys.argv[1], b"cinder-python")
coordinator.start(start_heart=True)
lock = coordinator.get_lock(b"cinder-" + sys.argv[2].encode("ascii"))
lock._lock._ensure_path()
print("assured", flush=True)
sys.stdin.readline()
try:
    print("got" if lock.acquire(True) else "busy", flush=True)
except Exception as error:
    print(type(error).__name__, flush=True)

"""A tooz process, told what to do on its command line: URL COMMAND NAME [ARGUMENTS]."""
import sys

from tooz import coordination


def main(url, command, name, *arguments):
    coordinator = coordination.get_coordinator(url, b"cinder-python")
    coordinator.start(start_heart=True)
    lock = coordinator.get_lock(b"cinder-" + name.encode("ascii"))
    if command == "try":
        got = lock.acquire(False)
        print("got" if got else "busy", flush=True)
        if got:
            lock.release()
    elif command == "hold":
        print("waiting", flush=True)
        lock.acquire(True)
        print("held", flush=True)
        sys.stdin.readline()
        lock.release()
        print("released", flush=True)
    elif command == "count":
        path, rounds = arguments
        for _ in range(int(rounds)):
            lock.acquire(True)
            with open(path) as file:
                count = int(file.read())
            with open(path, "w") as file:
                file.write(str(count + 1))
            lock.release()
    coordinator.stop()


main(*sys.argv[1:])

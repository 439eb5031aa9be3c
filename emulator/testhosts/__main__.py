"""Test hosts from the command line.

    python -m testhosts up --state DIR --host NAME:SUITE ...   make hosts, and return when they answer SSH
    python -m testhosts down --state DIR                       remove them; nothing to do is no fault
    python -m testhosts hold --state DIR --host NAME:SUITE ... the same in the foreground, until SIGTERM

DIR gets inventory.yml, the keys, and last ready.json: addresses, process, and the network's namespace.
"""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from .hosts import TestHosts
from .machine import what_is_missing

_TERM_S = 20
_TAKEN = "testhosts: there are hosts in {} already: remove them with `down`"


def _hold(state: Path, suites: dict[str, str]) -> int:
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(_TAKEN.format(state), file=sys.stderr)
            return 1
        (state / "ready.json").unlink(missing_ok=True)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        hosts = None
        try:
            hosts = TestHosts(state, suites)
            addresses = {name: hosts.address(name) for name in hosts.machines}
            ready = {"pid": os.getpid(), "namespace": str(hosts.network.namespace), "addresses": addresses}
            (state / "ready.json.new").write_text(json.dumps(ready))
            (state / "ready.json.new").replace(state / "ready.json")
            while True:
                signal.pause()
        except KeyboardInterrupt:
            return 0
        except OSError as error:
            print(f"testhosts: {error}", file=sys.stderr)
            return 1
        finally:
            if hosts:
                hosts.close()


def _up(state: Path, words: list[str]) -> int:
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if _holder(state):
        print(_TAKEN.format(state), file=sys.stderr)
        return 1
    (state / "ready.json").unlink(missing_ok=True)
    with (state / "log.txt").open("w") as log:
        holder = subprocess.Popen(
            [sys.executable, "-m", "testhosts", "hold", *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    while not (state / "ready.json").exists():
        if holder.poll() is not None:
            print((state / "log.txt").read_text().strip(), file=sys.stderr)
            return 1
        time.sleep(0.1)
    return 0


def _holder(state: Path) -> int | None:
    """The process that holds the hosts now (0: it has yet to write its number), or None."""
    try:
        with (state / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return int((state / "lock").read_text() or 0)
    return None


def _down(state: Path) -> int:
    """Have the holder leave, once; one that does not is killed, and takes its hosts along."""
    began, told = time.monotonic(), False
    while (holder := _holder(state)) is not None:
        late = time.monotonic() - began > _TERM_S
        if holder and (late or not told):
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, signal.SIGKILL if late else signal.SIGTERM)
            told = True
        time.sleep(0.1)
    return 0


def main() -> int:
    """Run the verb."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["up", "down", "hold"])
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="folder for keys and inventory")
    parser.add_argument("--host", action="append", default=[], metavar="NAME:SUITE", help="as debian13:trixie")
    arguments = parser.parse_args()
    state: Path = arguments.state.resolve()
    if arguments.verb == "down":
        return _down(state)
    if lacking := what_is_missing():
        print(f"testhosts: {lacking}", file=sys.stderr)
        return 1
    if arguments.verb == "up":
        words = ["--state", str(state)]
        for host in arguments.host:
            words += ["--host", host]
        return _up(state, words)

    def leave(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # leaving takes a moment, and is not to be cut off
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    return _hold(state, dict(word.split(":", 1) for word in arguments.host))


if __name__ == "__main__":
    sys.exit(main())

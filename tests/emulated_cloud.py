"""The OCI emulator as a process of its own, for tests: real HTTP and TLS on loopback, no real cloud in reach."""

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testhosts.network import inside

ROOT = Path(__file__).parent.parent
COLLECTIONS = ROOT / "collections"
MODULE = COLLECTIONS / "ansible_collections/faceswap/ops/plugins/modules/oci_instance.py"
PARTS = [  # of a stack with a public network, sorted
    "boot_volume",
    "instance",
    "internet_gateway",
    "network_security_group",
    "route_table",
    "subnet",
    "vcn",
    "vnic",
]
START_S = 60  # it makes RSA keys, and the machine may be busy


@dataclass(frozen=True)
class EmulatedCloud:
    """A running emulator. `env` is the whole environment for its clients; `ready` what its ready.json says."""

    state: Path
    env: dict[str, str]
    ready: dict[str, Any]

    @property
    def tenancy(self) -> str:
        """OCID of the root compartment."""
        return str(self.ready["tenancy"])

    @property
    def compartment(self) -> str:
        """OCID of a compartment below the root."""
        return str(self.ready["compartment"])

    @property
    def regions(self) -> list[str]:
        """Names of the subscribed regions, the home one first."""
        return list(self.ready["regions"])

    def ledger(self) -> Any:
        """What exists and existed, as the emulator itself wrote it down."""
        return self._ask("/emulator/ledger")

    def alive(self) -> list[dict[str, Any]]:
        """What exists now, but for what comes and goes with a VCN or a VNIC: empty only when nothing exists."""
        rows = [row for row in self.ledger()["resources"] if row["ended"] is None]
        own = [row for row in rows if row["kind"] != "public_ip" and not row["name"].startswith("Default ")]
        assert own or not rows, rows
        return sorted(own, key=lambda row: str(row["kind"]))

    def requests(self) -> Any:
        """Every request that came in, the oldest first."""
        return self._ask("/emulator/requests")

    def post(self, path: str, data: Any) -> Any:
        """Change the emulator: `path` is faults, policy, settings or scenarios; its README says what each takes."""
        return self._ask(f"/emulator/{path}", json.dumps(data).encode())

    def scenarios(self, *names: str) -> None:
        """Forget all faults, settings and policies, and let these scenarios loose; no names: nothing is wrong."""
        self.post("scenarios", list(names))

    def hits(self) -> Any:
        """How often each of the present scenarios had an effect."""
        return self._ask("/emulator/scenarios/hits")

    def run_module(self, arguments: Mapping[str, Any], check: bool = False) -> dict[str, Any]:
        """Run faceswap.ops.oci_instance in a process of its own, as Ansible does; what is None is left out."""
        given = {name: value for name, value in arguments.items() if value is not None}
        done = subprocess.run(
            [sys.executable, MODULE],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": given | {"_ansible_check_mode": check}}),
            env=self.env | {"PYTHONPATH": str(COLLECTIONS)},
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert "Traceback" not in done.stderr + done.stdout, done.stderr + done.stdout
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(
            self.env["HTTPS_PROXY"] + path, body, {"Content-Type": "application/json"} if body else {}
        )

        def ask() -> Any:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")

        namespace = self.ready["namespace"]  # where the emulator listens, if not in this machine's own
        return inside(Path(namespace), ask) if namespace else ask()


@contextmanager
def emulated_cloud(folder: Path, **flags: Any) -> Iterator[EmulatedCloud]:
    """Start an emulator in `folder`, and end it.

    `flags` become its options: `waiting=2` is `--waiting 2`, `no_ssh=True` is `--no-ssh`.
    """
    state = folder / "emulator"
    options = []
    for name, value in flags.items():
        options += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    with (folder / "emulator.log").open("w") as log:
        process = subprocess.Popen(
            # It ends with whoever started it, and takes its machines along, even where that one is killed.
            ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "oci_emulator", "--state", str(state), *options],
            env=os.environ | {"PYTHONPATH": str(ROOT / "emulator")},
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + START_S
        while not (state / "ready.json").exists():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the emulator did not start:\n{(folder / 'emulator.log').read_text()}")
            time.sleep(0.05)
        ready = json.loads((state / "ready.json").read_text())
        yield EmulatedCloud(state, client_environment(state), ready)
    finally:
        process.terminate()
        process.wait(30)


def client_environment(state: Path) -> dict[str, str]:
    """This process's environment with the emulator's: nothing of the user's own cloud is left in it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        own.pop(name, None)
    for line in (state / "environment").read_text().splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            own |= dict(word.split("=", 1) for word in words[1:])
    return own

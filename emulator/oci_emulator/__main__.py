"""Starts the emulator: `python -m oci_emulator --state DIR`."""

import argparse
import json
import logging
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from oci.regions import REGIONS
from testhosts import machine
from testhosts.network import inside

from . import capacity, identity, images, instances, launch, limits, network, scenarios, volumes, work_requests
from .api import Api
from .cloud import Cloud, new_ocid
from .credentials import Authority, TokenIssuer, write_private, write_profiles
from .guest import Guests, HostGuests, SshGuests, what_is_missing
from .principal import InstancePrincipal
from .server import Server
from .settings import Settings
from .signature import KeyRing

# Importing these registers their operations.
SERVICES = (capacity, identity, images, instances, launch, limits, network, volumes, work_requests)
_REGIONS = "us-ashburn-1,eu-frankfurt-1,us-phoenix-1"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="oci_emulator", description="An emulator of the OCI API on loopback.")
    add = parser.add_argument
    add("--state", type=Path, required=True, help="folder for keys, certificate and config; made if missing")
    add("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    add("--waiting", type=float, default=0.5, help="seconds from PROVISIONING to RUNNING (default 0.5)")
    add("--regions", default=_REGIONS, help=f"the first is the home region (default {_REGIONS})")
    add(
        "--scenario",
        action="append",
        default=[],
        choices=scenarios.known(),
        metavar="NAME",
        help=f"a trouble to begin with, repeatable: {', '.join(scenarios.known())}",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--no-ssh", action="store_true", help="instances do not answer SSH (needs no root)")
    kind.add_argument(
        "--hosts",
        metavar="SUITE",
        help="instances are test hosts of this Debian release, in a network namespace where the emulator listens too",
    )
    return parser.parse_args()


def _write_state(state: Path, api: Api, authority: Authority, port: int, compartment: str) -> None:
    """Write what clients need; ready.json comes last and at once."""
    (state / "ca.pem").write_bytes(authority.pem())
    values = {
        "HTTPS_PROXY": f"http://127.0.0.1:{port}", "REQUESTS_CA_BUNDLE": state / "ca.pem",
        "SSL_CERT_FILE": state / "ca.pem", "OCI_CLI_CONFIG_FILE": state / "config", "NO_PROXY": "",
        "OCI_METADATA_BASE_URL": f"http://127.0.0.1:{port}/opc/v2",
    }  # fmt: skip
    (state / "environment").write_text("".join(f"export {name}='{value}'\n" for name, value in values.items()))
    ready = {
        "port": port, "tenancy": api.cloud.tenancy, "compartment": compartment, "regions": api.cloud.regions,
        "state": str(state), "pid": os.getpid(), "namespace": str(api.guests.namespace or ""),
    }  # fmt: skip
    write_private(state / "ready.json.new", json.dumps(ready).encode())
    (state / "ready.json.new").replace(state / "ready.json")


def _guests(state: Path, no_ssh: bool, suite: str | None) -> Guests:
    """Real machines where they can be had; else one sentence, and addresses that nobody answers.

    Raises OSError where test hosts are asked for and cannot be had.
    """
    if suite:
        if lacking := machine.what_is_missing():
            raise OSError(lacking)
        return HostGuests(state / "guests", suite)
    lacking = "" if no_ssh else what_is_missing()
    if lacking:
        print(f"oci_emulator: instances will not answer SSH: {lacking}; --no-ssh silences this", file=sys.stderr)
    return Guests() if no_ssh or lacking else SshGuests(state / "guests")


def main() -> int:
    """Run until SIGTERM or SIGINT."""
    arguments = _arguments()
    logging.basicConfig(level=os.environ.get("OCI_EMULATOR_LOG", "WARNING"), format="oci_emulator: %(message)s")
    regions = arguments.regions.split(",")
    if unknown := [region for region in regions if region not in REGIONS]:
        print(f"oci_emulator: the SDK knows no region {', '.join(unknown)}", file=sys.stderr)
        return 2
    state = arguments.state.resolve()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    (state / "ready.json").unlink(missing_ok=True)
    shutil.rmtree(state / "guests", ignore_errors=True)  # empty folders that a killed run left
    tenancy, user = new_ocid("tenancy"), new_ocid("user")
    issuer = TokenIssuer()
    ring = KeyRing(issuer, write_profiles(state, tenancy, user, regions[0], issuer))
    cloud = Cloud(tenancy, regions, arguments.waiting)
    compartments = identity.populate(cloud, ["faceswap", "other"])
    images.populate(cloud)
    try:
        guests = _guests(state, arguments.no_ssh, arguments.hosts)
    except OSError as error:
        print(f"oci_emulator: {error}", file=sys.stderr)
        return 1
    settings = Settings(cloud)
    scenarios.play(settings, arguments.scenario)
    api = Api(cloud, ring, settings, guests)
    authority = Authority()
    try:
        principal = InstancePrincipal(ring, tenancy, regions[0])
        start = partial(Server, arguments.port, api, authority, principal)
        server = inside(guests.namespace, start) if guests.namespace else start()
    except OSError as error:
        print(f"oci_emulator: cannot listen on port {arguments.port}: {error.strerror}", file=sys.stderr)
        guests.close()
        return 1

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        _write_state(state, api, authority, server.server_port, compartments[0])
        server.serve_forever(poll_interval=60)
    except KeyboardInterrupt:
        pass
    finally:
        guests.close()
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

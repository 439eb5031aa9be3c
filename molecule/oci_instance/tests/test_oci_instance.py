"""After oci_instance: what the emulated cloud itself holds, and what answers at the instance's address.

Nothing here asks our own module. The last test takes all down again.
"""

import base64
import json
import os
import re
import shlex
import ssl
import stat
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import oci
import pytest
import yaml
from emulated_cloud import EmulatedCloud, client_environment

ROOT = Path(__file__).parents[3]
PROGRAMS = Path(sys.executable).parent
OURS = ("vcn", "subnet", "internet_gateway", "network_security_group", "instance", "vnic", "boot_volume")


@pytest.fixture(scope="module")
def place() -> Path:
    """The scenario's folder."""
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "a site")


@pytest.fixture(scope="module")
def cloud(place: Path) -> Iterator[EmulatedCloud]:
    """The running emulator, with this process as one of its clients."""
    env = client_environment(place / "cloud")
    env.pop("ANSIBLE_FORCE_COLOR", None)
    env |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}  # molecule set others
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):
            patch.setenv(name, env[name])
        yield EmulatedCloud(place / "cloud", env, json.loads((place / "cloud" / "ready.json").read_text()))


@pytest.fixture(scope="module")
def config(cloud: EmulatedCloud) -> Any:
    """For clients of the SDK."""
    return oci.config.from_file(cloud.env["OCI_CLI_CONFIG_FILE"])


@pytest.fixture
def instance(cloud: EmulatedCloud, config: Any) -> Any:
    """The one instance, as the cloud shows it."""
    [row] = [row for row in standing(cloud) if row["kind"] == "instance"]
    return oci.core.ComputeClient(config).get_instance(row["id"]).data


@pytest.fixture
def second(cloud: EmulatedCloud, place: Path, tmp_path: Path) -> Path:
    """Inventory of a controller that has the login key and has never seen the instance."""
    inventory = tmp_path / "oci.yml"
    inventory.write_text(
        yaml.safe_dump(
            {
                "plugin": "faceswap.ops.oci",
                "state_dir": str(tmp_path / "a state"),
                "ssh_private_key_file": str(place / "state" / "molecule" / "id_ed25519"),
            }
        )
    )
    return inventory


def standing(cloud: EmulatedCloud) -> list[dict[str, Any]]:
    """What exists at this moment, in the emulator's ledger."""
    return [row for row in cloud.ledger()["resources"] if row["ended"] is None]


def program(cloud: EmulatedCloud, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's programs as a user would, in the checkout."""
    return subprocess.run(
        [str(PROGRAMS / words[0]), *words[1:]], cwd=ROOT, env=cloud.env, capture_output=True, text=True, timeout=120
    )


def posted_host_key(instance: Any) -> str:
    """The base64 of the public host key that the user data brought."""
    data = yaml.safe_load(base64.b64decode(instance.metadata["user_data"]))
    return str(data["ssh_keys"]["ed25519_public"].split()[1])


def address(config: Any, instance: Any) -> str:
    """The public address, by way of the VNIC."""
    compute = oci.core.ComputeClient(config)
    [attachment] = compute.list_vnic_attachments(instance.compartment_id, instance_id=instance.id).data
    return str(oci.core.VirtualNetworkClient(config).get_vnic(attachment.vnic_id).data.public_ip)


def key_on_the_wire(where: str) -> str:
    """The base64 of the host key that answers there; empty where nobody does."""
    told = subprocess.run(["ssh-keyscan", "-t", "ed25519", where], capture_output=True, text=True, timeout=60).stdout
    return told.split()[2] if told else ""


def test_check_converge_and_a_second_time_made_one_of_each(cloud: EmulatedCloud) -> None:
    counts = Counter(row["kind"] for row in standing(cloud))
    assert {kind: counts[kind] for kind in OURS} == dict.fromkeys(OURS, 1)
    made = Counter(request["operation"] for request in cloud.requests() if request["method"] == "POST")
    assert made["LaunchInstance"] == made["CreateVcn"] == made["CreateSubnet"] == 1


def test_all_of_it_is_marked_with_stack_life_owner_and_end(cloud: EmulatedCloud) -> None:
    rows = [row for row in standing(cloud) if row["kind"] in OURS]
    assert {row["tags"]["faceswap-stack"] for row in rows} == {"molecule"}
    assert len({row["tags"]["faceswap-run"] for row in rows}) == 1
    assert all(row["tags"]["faceswap-owner"] for row in rows)
    [launched] = [datetime.fromisoformat(row["created"]) for row in rows if row["kind"] == "instance"]
    [expires] = {datetime.fromisoformat(row["tags"]["faceswap-expires"]) for row in rows}
    assert timedelta(hours=23, minutes=55) < expires - launched <= timedelta(hours=24)


def test_the_instance_is_closed_where_it_can_be(instance: Any) -> None:
    assert instance.instance_options.are_legacy_imds_endpoints_disabled
    assert instance.launch_options.is_pv_encryption_in_transit_enabled


def test_only_ssh_from_the_controller_is_let_in(cloud: EmulatedCloud, config: Any) -> None:
    asked = urllib.request.build_opener(
        urllib.request.ProxyHandler({"https": cloud.env["HTTPS_PROXY"]}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=cloud.env["SSL_CERT_FILE"])),
    )
    with asked.open("https://checkip.amazonaws.com", timeout=30) as answer:
        controller = answer.read().decode().strip()
    network = oci.core.VirtualNetworkClient(config)
    there = {row["kind"]: row["id"] for row in standing(cloud) if row["kind"] in OURS}
    group = there["network_security_group"]
    rules = network.list_network_security_group_security_rules(group, direction="INGRESS").data
    assert [(rule.source, rule.tcp_options.destination_port_range) for rule in rules if rule.protocol == "6"] == [
        (f"{controller}/32", oci.core.models.PortRange(min=22, max=22))
    ]
    assert [rule.icmp_options.code for rule in rules if rule.protocol != "6"] == [4]  # "fragmentation needed"
    assert network.get_vnic(there["vnic"]).data.nsg_ids == [group]
    lists = network.get_subnet(there["subnet"]).data.security_list_ids
    assert lists
    for ocid in lists:
        assert network.get_security_list(ocid).data.ingress_security_rules == []


def test_the_host_key_is_not_the_one_that_oracle_has_seen(config: Any, instance: Any) -> None:
    wire = key_on_the_wire(address(config, instance))
    assert wire
    assert wire != posted_host_key(instance)
    assert instance.freeform_tags["faceswap-host-key"] == f"rotated:{wire}"


def test_the_controller_keeps_a_ledger_a_pin_the_login_key_and_what_was_told(
    cloud: EmulatedCloud, place: Path, config: Any, instance: Any
) -> None:
    folder = place / "state" / "molecule"
    assert {path.name for path in folder.iterdir() if path.suffix != ".lock"} == {
        "id_ed25519",
        "id_ed25519.pub",
        "known_hosts",
        "ledger.jsonl",
        "progress.json",
    }
    private = [path.name for path in folder.iterdir() if "PRIVATE KEY" in path.read_text()]
    assert private == ["id_ed25519"]
    assert stat.S_IMODE((folder / "id_ed25519").stat().st_mode) == 0o600
    noted = (folder / "ledger.jsonl").read_text()
    assert [row["id"] for row in standing(cloud) if row["kind"] in OURS and row["id"] not in noted] == []
    wire = key_on_the_wire(address(config, instance))
    assert (folder / "known_hosts").read_text().split()[1:] == ["ssh-ed25519", wire]


def test_a_second_controller_connects_by_the_inventory_alone(cloud: EmulatedCloud, second: Path) -> None:
    found = program(cloud, "ansible", "-i", str(second), "faceswap", "-m", "ansible.builtin.command", "-a", "id -un")
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.splitlines()[-1] == "ubuntu"


def test_another_host_key_is_refused(cloud: EmulatedCloud, config: Any, instance: Any, second: Path) -> None:
    listed = program(cloud, "ansible-inventory", "-i", str(second), "--host", "molecule")
    variables = json.loads(listed.stdout)
    connect = [
        "ssh",
        *shlex.split(variables["ansible_ssh_common_args"]),
        *("-o", "BatchMode=yes", "-i", variables["ansible_ssh_private_key_file"]),
        f"{variables['ansible_user']}@{variables['ansible_host']}",
        "true",
    ]
    right = subprocess.run(connect, capture_output=True, text=True, timeout=60)
    assert right.returncode == 0, right.stderr
    pin = second.parent / "a state" / "molecule" / "known_hosts"
    wire = key_on_the_wire(address(config, instance))
    pin.write_text(pin.read_text().replace(wire, posted_host_key(instance)))
    wrong = subprocess.run(connect, capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 255
    assert "Host key verification failed" in wrong.stderr


def test_destroy_leaves_nothing(cloud: EmulatedCloud, config: Any, instance: Any, second: Path) -> None:
    where = address(config, instance)
    play = (
        *("ansible-playbook", "playbooks/destroy.yml"),
        *("-i", str(ROOT / "molecule" / "inventory"), "-i", str(second)),
    )
    shown = program(cloud, *play, "--check", "--diff")
    assert shown.returncode == 0 and re.search(r"^here .*changed=1 .*failed=0", shown.stdout, re.M), shown.stdout
    assert Counter(row["kind"] for row in standing(cloud))["instance"] == 1

    gone = program(cloud, *play)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert standing(cloud) == []
    assert key_on_the_wire(where) == ""
    regions = ", ".join(sorted(cloud.regions))
    assert f"0 things of molecule left in {regions}" in " ".join(gone.stdout.split())

    again = program(cloud, *play)  # the inventory plugin finds nothing now
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"^here .*changed=0 .*failed=0", again.stdout, re.M), again.stdout

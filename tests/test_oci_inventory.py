"""The inventory plugin from its file to `ansible-inventory`, through the real SDK, against the emulator."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oci
import pytest
from emulated_cloud import EmulatedCloud, emulated_cloud

COLLECTIONS = Path(__file__).parent.parent / "collections"
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "k" * 43
RUNS = {"demo": "0123456789ab", "off": "ba9876543210"}


def tags(name: str) -> dict[str, str]:
    return {
        "faceswap-stack": name,
        "faceswap-run": RUNS[name],
        "faceswap-owner": "anna",
        "faceswap-expires": "2026-11-23T10:00:00Z",
        "faceswap-user": "ubuntu",
        "faceswap-host-key": f"rotated:{KEY}",
    }


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    """A tenancy with, in its second region: demo (runs), off (stopped), a foreign instance and a terminated one."""
    with (
        emulated_cloud(tmp_path_factory.mktemp("cloud"), no_ssh=True, waiting=0.1) as cloud,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):
            patch.setenv(name, cloud.env[name])
        fill(cloud)
        yield cloud


def fill(cloud: EmulatedCloud) -> None:
    """Make the instances by plain calls of the SDK, as anything else than our own module would."""
    region = cloud.regions[1]
    config = oci.config.from_file(cloud.env["OCI_CLI_CONFIG_FILE"]) | {"region": region}
    compute, network = oci.core.ComputeClient(config), oci.core.VirtualNetworkClient(config)
    models = oci.core.models
    vcn = network.create_vcn(
        models.CreateVcnDetails(compartment_id=cloud.compartment, cidr_blocks=["10.20.0.0/16"])
    ).data
    arrived(network.get_vcn, vcn.id, "AVAILABLE")
    subnet = network.create_subnet(
        models.CreateSubnetDetails(compartment_id=cloud.compartment, vcn_id=vcn.id, cidr_block="10.20.0.0/24")
    ).data
    arrived(network.get_subnet, subnet.id, "AVAILABLE")
    domain = oci.identity.IdentityClient(config).list_availability_domains(cloud.tenancy).data[0].name
    shape = "VM.GPU.A10.1"
    image = compute.list_images(cloud.compartment, operating_system="Canonical Ubuntu", shape=shape).data[0]
    made = {}
    for name, public, marks in (
        ("demo", True, tags("demo")),
        ("off", False, tags("off")),
        ("foreign", True, {"team": "red"}),
        ("gone", True, tags("demo") | {"faceswap-stack": "gone"}),
    ):
        details = models.LaunchInstanceDetails(
            compartment_id=cloud.compartment,
            availability_domain=domain,
            display_name=name,
            shape=shape,
            source_details=models.InstanceSourceViaImageDetails(image_id=image.id, boot_volume_size_in_gbs=50),
            create_vnic_details=models.CreateVnicDetails(subnet_id=subnet.id, assign_public_ip=public),
            freeform_tags=marks,
        )
        made[name] = compute.launch_instance(details).data.id
    for identity in made.values():
        arrived(compute.get_instance, identity, "RUNNING")
    compute.instance_action(made["off"], "STOP")
    compute.terminate_instance(made["gone"], preserve_boot_volume=False)
    arrived(compute.get_instance, made["off"], "STOPPED")
    arrived(compute.get_instance, made["gone"], "TERMINATED")


def arrived(get: Callable[[str], Any], identity: str, state: str) -> None:
    end = time.monotonic() + 30
    while get(identity).data.lifecycle_state != state:
        assert time.monotonic() < end, f"{identity} never was {state}"
        time.sleep(0.05)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An inventory file of a user."""
    path = tmp_path / "hosts.oci.yml"
    path.write_text(json.dumps({"plugin": "faceswap.ops.oci", "state_dir": str(tmp_path / "state dir")}))
    return path


def ask(cloud: EmulatedCloud, source: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-inventory in an empty folder; a file that cannot be read is an error there."""
    defaults = {
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_HOME": str(source.parent / "ansible"),
    }
    return subprocess.run(
        [Path(sys.executable).parent / "ansible-inventory", "-i", source, "--list", *arguments],
        env=cloud.env | defaults | environment,
        cwd=source.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


def listed(cloud: EmulatedCloud, source: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    done = ask(cloud, source, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout, object_hook=plain)
    return answer


def plain(value: dict[str, Any]) -> Any:
    """Without the mark of ansible-core for text that it never takes for a template, as what a cloud says must be."""
    return value["__ansible_unsafe"] if list(value) == ["__ansible_unsafe"] else value


def instance(cloud: EmulatedCloud, name: str) -> dict[str, Any]:
    """What the emulator's own ledger says of an instance."""
    rows = [row for row in cloud.ledger()["resources"] if row["kind"] == "instance" and row["name"] == name]
    (row,) = rows
    return dict(row)


def test_ours_are_listed_with_all_that_reaches_them_and_nothing_else(cloud: EmulatedCloud, source: Path) -> None:
    answer = listed(cloud, source)
    hostvars = answer["_meta"]["hostvars"]
    assert sorted(hostvars) == ["demo", "off"]
    assert answer["faceswap"]["hosts"] == ["demo"] and answer["oci_stopped"]["hosts"] == ["off"]
    demo = hostvars["demo"]
    assert demo["ansible_host"].startswith("127.66.")
    assert demo["ansible_user"] == "ubuntu"
    assert hostvars["off"]["ansible_host"].startswith("10.20.0.")
    info = demo["oci_instance_info"]
    assert info["id"] == instance(cloud, "demo")["id"]
    assert (info["region"], info["compartment_id"], info["run"]) == (
        cloud.regions[1],
        cloud.compartment,
        RUNS["demo"],
    )
    assert (info["lifecycle_state"], info["expires"]) == ("RUNNING", "2026-11-23T10:00:00Z")
    pin = source.parent / "state dir/demo/known_hosts"
    assert pin.read_text() == f"demo.{RUNS['demo']} ssh-ed25519 {KEY}\n"
    assert pin.stat().st_mode & 0o777 == 0o600 and pin.parent.stat().st_mode & 0o777 == 0o700


def test_ssh_itself_takes_the_pin_from_a_folder_with_a_space(cloud: EmulatedCloud, source: Path) -> None:
    """As Ansible does it: the arguments split like a shell's, then ssh tells what it made of them."""
    import shlex

    demo = listed(cloud, source)["_meta"]["hostvars"]["demo"]
    told = subprocess.run(
        ["ssh", "-G", *shlex.split(demo["ansible_ssh_common_args"]), demo["ansible_host"]],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert f"hostkeyalias demo.{RUNS['demo']}" in told and "stricthostkeychecking true" in told
    (files,) = [line for line in told if line.startswith("userknownhostsfile ")]
    assert files == f"userknownhostsfile {source.parent}/state dir/demo/known_hosts"
    alias = subprocess.run(
        ["ssh-keygen", "-F", f"demo.{RUNS['demo']}", "-f", files.split(" ", 1)[1]], capture_output=True, text=True
    )
    assert KEY in alias.stdout


def test_an_empty_page_is_not_the_end(cloud: EmulatedCloud, source: Path) -> None:
    cloud.post("settings", {"empty_first_page": True, "page_size": 1})
    try:
        assert sorted(listed(cloud, source)["_meta"]["hostvars"]) == ["demo", "off"]
    finally:
        cloud.post("settings", {"empty_first_page": False, "page_size": 1000})


def test_a_second_controller_is_pinned_by_the_tag_alone(cloud: EmulatedCloud, source: Path) -> None:
    first = listed(cloud, source)["_meta"]["hostvars"]["demo"]
    elsewhere = source.parent / "elsewhere"
    source.write_text(json.dumps({"plugin": "faceswap.ops.oci", "state_dir": str(elsewhere)}))
    second = listed(cloud, source)["_meta"]["hostvars"]["demo"]
    assert second["ansible_host"] == first["ansible_host"]
    assert (elsewhere / "demo/known_hosts").read_text() == f"demo.{RUNS['demo']} ssh-ed25519 {KEY}\n"
    assert str(elsewhere) in second["ansible_ssh_common_args"]


def test_only_what_was_named_is_searched(cloud: EmulatedCloud, source: Path) -> None:
    options = {"compartments": [cloud.compartment], "regions": [cloud.regions[0]]}
    source.write_text(json.dumps({"plugin": "faceswap.ops.oci", **options, "state_dir": str(source.parent)}))
    before = len(cloud.requests())
    assert listed(cloud, source)["_meta"]["hostvars"] == {}
    asked = cloud.requests()[before:]
    assert [(row["region"], row["operation"]) for row in asked] == [(cloud.regions[0], "ListInstances")]


def test_a_cache_hit_asks_nothing_and_does_without_the_sdk(cloud: EmulatedCloud, source: Path) -> None:
    cache = {
        "cache": True,
        "cache_plugin": "ansible.builtin.jsonfile",
        "cache_connection": str(source.parent / "cache"),
    }
    options = json.loads(source.read_text()) | cache
    source.write_text(json.dumps(options))
    first = listed(cloud, source)
    before = len(cloud.requests())
    trap = source.parent / "trap/oci/__init__.py"
    trap.parent.mkdir(parents=True)
    trap.write_text("raise RuntimeError('the SDK was imported')\n")
    pin = source.parent / "state dir/demo/known_hosts"
    pin.unlink()
    second = listed(cloud, source, PYTHONPATH=str(source.parent / "trap"))
    assert second == first
    assert len(cloud.requests()) == before
    assert pin.exists()
    assert listed(cloud, source, "--flush-cache") == first
    assert len(cloud.requests()) > before


def test_groups_can_be_made_of_what_is_known(cloud: EmulatedCloud, source: Path) -> None:
    more = {
        "keyed_groups": [{"key": "oci_instance_info.shape", "prefix": "shape"}],
        "groups": {"expiring": "oci_instance_info.expires is defined"},
        "compose": {"where": "oci_instance_info.region"},
    }
    source.write_text(json.dumps(json.loads(source.read_text()) | more))
    answer = listed(cloud, source)
    assert sorted(answer["shape_VM_GPU_A10_1"]["hosts"]) == sorted(answer["expiring"]["hosts"]) == ["demo", "off"]
    assert answer["_meta"]["hostvars"]["demo"]["where"] == cloud.regions[1]


def test_a_user_who_may_read_one_compartment_only_still_finds_all(cloud: EmulatedCloud, source: Path) -> None:
    """The root and other compartments answer 404 then, and only when all do is that an error."""
    refusal = {"status": 404, "code": "NotAuthorizedOrNotFound", "message": "Authorization failed", "times": 100}
    refused = [{"operation": "ListInstances", "where": {"compartmentId": cloud.tenancy}, **refusal}]
    try:
        cloud.post("faults", refused)
        assert sorted(listed(cloud, source)["_meta"]["hostvars"]) == ["demo", "off"]
        cloud.post("faults", [{"operation": "ListInstances", **refusal}])
        done = ask(cloud, source)
        assert done.returncode != 0
        assert "list_instances was answered 'not authorized or not found'" in " ".join(done.stderr.split())
    finally:
        cloud.post("faults", [])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": "WRONGKEY"}, "Oracle did not accept the signature of profile WRONGKEY"),
        ({"profile": "EXPIRED", "auth": "security_token"}, "The session token of profile EXPIRED expired"),
        ({"profile": "NOBODY"}, "There is no profile NOBODY"),
        ({"config_file": "/nonexistent/config"}, "/nonexistent/config cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(cloud: EmulatedCloud, source: Path, options: dict[str, str], said: str) -> None:
    source.write_text(json.dumps(json.loads(source.read_text()) | options))
    done = ask(cloud, source)
    assert done.returncode != 0
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_the_environment_names_the_profile(cloud: EmulatedCloud, source: Path) -> None:
    done = ask(cloud, source, OCI_CLI_PROFILE="WRONGKEY")
    assert "profile WRONGKEY" in " ".join(done.stderr.split())
    assert (
        "demo" in listed(cloud, source, OCI_CLI_PROFILE="TOKEN", OCI_CLI_AUTH="security_token")["_meta"]["hostvars"]
    )


def test_no_environment_of_the_user_reaches_the_tests(cloud: EmulatedCloud) -> None:
    left = {name for name in cloud.env if name.startswith("OCI_")}
    assert left == {"OCI_CLI_CONFIG_FILE", "OCI_METADATA_BASE_URL"}, os.environ  # both of them the emulator's

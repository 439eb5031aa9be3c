"""faceswap.ops.oci_instance by the real SDK and real SSH against the emulator, judged by the emulator's ledger."""

import fcntl
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oci
import pytest
from emulated_cloud import PARTS, EmulatedCloud, emulated_cloud
from oci_emulator.guest import what_is_missing

NO_SSH = what_is_missing()
NEED_SSH = pytest.mark.skipif(NO_SSH != "", reason=f"no emulated instance that answers SSH: {NO_SSH}")

Play = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    with (
        emulated_cloud(tmp_path_factory.mktemp("cloud"), waiting=0.2) as cloud,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE"):  # for the plain clients below
            patch.setenv(name, cloud.env[name])
        yield cloud


@pytest.fixture
def play(cloud: EmulatedCloud, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Play]:
    """Run the module with these arguments, for a stack of the test's own which is destroyed at the end."""
    name = f"t{abs(hash(request.node.name)) % 10**8}"

    def run(controller: str = "first controller", check: bool = False, **arguments: Any) -> dict[str, Any]:
        arguments = {
            "name": name,
            "compartment_id": cloud.compartment,
            "state_dir": str(tmp_path / controller),
            "ssh_sources": ["198.51.100.7/32"],
            "wait_for_ssh": not NO_SSH,
            "wait_s": 30,
        } | arguments
        return cloud.run_module(arguments, check)

    yield run
    cloud.post("faults", [])
    cloud.post("policy", {"denied": []})
    cloud.post("settings", {"page_size": 1000, "empty_first_page": False})
    gone = run(state="absent")
    assert gone.get("remaining") == [], gone


def name_of(tmp_path: Path) -> str:
    return next(path.name for folder in tmp_path.glob("*controller") for path in folder.iterdir())


def kinds(cloud: EmulatedCloud) -> list[str]:
    return [row["kind"] for row in cloud.alive()]


def writes(cloud: EmulatedCloud, since: int) -> list[str]:
    """What was to change something; the capacity report is a question, though one asks it by POST."""
    asked = [row["operation"] for row in cloud.requests()[since:] if row["method"] != "GET"]
    return [operation for operation in asked if operation != "CreateComputeCapacityReport"]


def clients(cloud: EmulatedCloud) -> tuple[Any, Any]:
    """Plain SDK clients (compute, network), for what happens outside of our module."""
    config = oci.config.from_file(cloud.env["OCI_CLI_CONFIG_FILE"])
    return oci.core.ComputeClient(config), oci.core.VirtualNetworkClient(config)


def foreign_vcn(cloud: EmulatedCloud, name: str) -> Any:
    _, network = clients(cloud)
    details = oci.core.models.CreateVcnDetails(
        compartment_id=cloud.compartment, cidr_blocks=["10.9.0.0/16"], display_name=name
    )
    vcn = network.create_vcn(details).data
    oci.wait_until(network, network.get_vcn(vcn.id), "lifecycle_state", "AVAILABLE", max_interval_seconds=1)
    return vcn


def remove(network: Any, kind: str, ocid: str) -> None:
    """Delete a part of a network and wait until it is gone."""
    answer = getattr(network, f"get_{kind}")(ocid)
    getattr(network, f"delete_{kind}")(ocid)
    oci.wait_until(
        network, answer, "lifecycle_state", "TERMINATED", succeed_on_not_found=True, max_interval_seconds=1
    )


# -- from nothing and back ---------------------------------------------------------------------------------


def test_from_nothing_to_a_reachable_instance_and_back_to_zero(cloud: EmulatedCloud, play: Play) -> None:
    assert kinds(cloud) == []
    since = len(cloud.requests())
    foretold = play(check=True)
    assert (writes(cloud, since), kinds(cloud)) == ([], [])

    made = play()
    assert (made["changed"], made["diff"]) == (True, foretold["diff"])
    assert kinds(cloud) == PARTS
    assert made["instance"]["lifecycle_state"] == "RUNNING"
    assert sorted(row["kind"] for row in made["resources"]) == PARTS

    since = len(cloud.requests())
    for check in (True, False):
        again = play(check=check)
        assert (again["changed"], again["instance"]) == (False, made["instance"])
    assert writes(cloud, since) == []

    foretold = play(check=True, state="absent")
    assert foretold["changed"] and kinds(cloud) == PARTS
    gone = play(state="absent")
    assert (gone["changed"], gone["remaining"], gone["diff"]) == (True, [], foretold["diff"])
    assert gone["regions"] == sorted(cloud.regions)
    ledger = cloud.ledger()
    assert (kinds(cloud), ledger["hourly"], ledger["launched"]) == ([], 0, 1)
    assert play(state="absent")["changed"] is False
    assert "InstanceAction" not in writes(cloud, since)  # terminated, not stopped


def test_what_was_asked_of_oracle(cloud: EmulatedCloud, play: Play) -> None:
    made = play(owner="anna", hours=8, boot_volume_gb=60, boot_volume_vpus=20)["instance"]
    compute, network = clients(cloud)
    instance = compute.get_instance(made["id"]).data
    assert instance.instance_options.are_legacy_imds_endpoints_disabled is True
    assert instance.launch_options.is_pv_encryption_in_transit_enabled is True
    assert instance.freeform_tags["faceswap-owner"] == "anna"
    assert instance.freeform_tags["faceswap-expires"] == made["expires"]
    assert instance.availability_domain.endswith("AD-2")  # AD-1 has no A10
    assert instance.fault_domain  # chosen by Oracle
    rows = {row["kind"]: row for row in cloud.alive()}
    assert all(row["tags"].get("faceswap-owner") == "anna" for row in rows.values()), rows
    vcn = network.get_vcn(rows["vcn"]["id"]).data
    assert network.get_security_list(vcn.default_security_list_id).data.ingress_security_rules == []
    rules = network.list_network_security_group_security_rules(rows["network_security_group"]["id"]).data
    tcp = [rule for rule in rules if rule.protocol == "6"]
    assert [(rule.source, rule.tcp_options.destination_port_range.max) for rule in tcp] == [("198.51.100.7/32", 22)]
    assert {rule.protocol for rule in rules} == {"6", "1"}  # beside it only ICMP's 'fragmentation needed'


def test_the_controllers_own_address_is_asked_for(cloud: EmulatedCloud, play: Play) -> None:
    shown = play(check=True, ssh_sources=None)["diff"]["after"]["security_rules"]
    assert shown == ["22/tcp from 198.51.100.7/32", "icmp 3/4 from 0.0.0.0/0"]


def test_stopping_and_starting(cloud: EmulatedCloud, play: Play) -> None:
    assert play(state="stopped")["instance"] == {}  # nothing is made in order to be stopped
    made = play()["instance"]
    for state, lifecycle in (("stopped", "STOPPED"), ("present", "RUNNING")):
        assert play(check=True, state=state)["changed"] is True
        done = play(state=state)
        assert (done["changed"], done["instance"]["lifecycle_state"]) == (True, lifecycle)
        assert done["instance"]["id"] == made["id"]
        assert play(state=state)["changed"] is False
    assert kinds(cloud) == PARTS


def test_a_shape_that_bills_while_it_is_stopped_is_said(cloud: EmulatedCloud, play: Play) -> None:
    play(shapes=["VM.GPU3.1"], wait_for_ssh=False)
    assert "goes on billing" in json.dumps(play(state="stopped")["warnings"])


def test_a_private_instance_has_no_public_address(cloud: EmulatedCloud, play: Play) -> None:
    made = play(network="private", wait_for_ssh=False)
    assert made["instance"]["public_ip"] == ""
    assert made["instance"]["address"].startswith("10.20.0.")
    assert "nat_gateway" in kinds(cloud) and "internet_gateway" not in kinds(cloud)
    assert play(network="private", wait_for_ssh=False)["changed"] is False


# -- never twice, never lost -------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["CreateVcn", "CreateSubnet", "LaunchInstance"])
def test_a_lost_answer_makes_nothing_twice(cloud: EmulatedCloud, play: Play, operation: str) -> None:
    launched = cloud.ledger()["launched"]
    cloud.post("faults", [{"operation": operation, "times": 1, "effect": "after", "drop": True}])
    assert play()["changed"]
    tokens = [row["retry_token"] for row in cloud.requests() if row["operation"] == operation]
    assert tokens[-1] == tokens[-2]
    assert (kinds(cloud), cloud.ledger()["launched"]) == (PARTS, launched + 1)


@pytest.mark.parametrize("operation", ["CreateRouteTable", "LaunchInstance"])
def test_a_run_that_never_got_its_answer_is_gone_on_with(cloud: EmulatedCloud, play: Play, operation: str) -> None:
    launched = cloud.ledger()["launched"]
    cloud.post("faults", [{"operation": operation, "times": 99, "effect": "after", "drop": True}])
    assert "cannot be reached" in play()["msg"]
    cloud.post("faults", [])
    play()
    assert (kinds(cloud), cloud.ledger()["launched"]) == (PARTS, launched + 1)


def test_the_image_stays_the_one_that_was_chosen(cloud: EmulatedCloud, play: Play) -> None:
    cloud.post("faults", [{"operation": "LaunchInstance", "times": 99, "drop": True}])
    assert "cannot be reached" in play()["msg"]
    cloud.post("faults", [])
    since = len(cloud.requests())
    play()
    operations = [row["operation"] for row in cloud.requests()[since:]]
    assert "GetImage" in operations and "ListImages" not in operations


def test_another_wish_leaves_the_instance_as_it_is(cloud: EmulatedCloud, play: Play) -> None:
    made = play()["instance"]
    again = play(shapes=["VM.Standard.E5.Flex"], ocpus=1, memory_gb=8, network="private", subnet_cidr="10.20.7.0/24")
    assert (again["changed"], again["instance"]["id"]) == (False, made["id"])
    assert "has subnet_cidr 10.20.0.0/24, not 10.20.7.0/24" in json.dumps(again["warnings"])
    assert "has a public network True, not False" in json.dumps(again["warnings"])
    assert "has shape VM.GPU.A10.1, not VM.Standard.E5.Flex" in json.dumps(again["warnings"])


def test_a_second_region_is_no_second_instance_of_the_same_name(cloud: EmulatedCloud, play: Play) -> None:
    play(wait_for_ssh=False)
    said = play(wait_for_ssh=False, regions=[cloud.regions[1]])["msg"]
    assert f"has an instance in {cloud.regions[0]}" in said and "choose another name" in said
    assert kinds(cloud) == PARTS


@pytest.mark.parametrize(
    "signing",
    [{"profile": "TOKEN", "auth": "security_token"}, {"config_file": "/nowhere", "auth": "instance_principal"}],
)
def test_every_way_of_signing_in_makes_and_removes(cloud: EmulatedCloud, play: Play, signing: dict[str, str]) -> None:
    assert play(wait_for_ssh=False, **signing)["changed"]
    assert play(state="absent", **signing)["remaining"] == []
    assert kinds(cloud) == []


def test_who_may_see_one_compartment_only_can_still_destroy(cloud: EmulatedCloud, play: Play) -> None:
    play(wait_for_ssh=False)
    hidden = {"operation": "ListInstances", "status": 404, "code": "NotAuthorizedOrNotFound", "times": 99}
    cloud.post("faults", [hidden | {"where": {"compartmentId": cloud.tenancy}}])
    assert play("second controller", state="absent", compartment_id=None)["remaining"] == []
    assert kinds(cloud) == []
    cloud.post("faults", [hidden])  # and who may see none is told so
    assert "Allow group <your group>" in play("second controller", state="absent", compartment_id=None)["msg"]


def test_small_and_empty_pages_hide_nothing(cloud: EmulatedCloud, play: Play) -> None:
    play()
    cloud.post("settings", {"page_size": 1, "empty_first_page": True})
    assert play()["changed"] is False
    assert kinds(cloud) == PARTS


@pytest.mark.parametrize(
    "operation",
    ["CreateInternetGateway", "CreateNetworkSecurityGroup", "CreateSubnet", "LaunchInstance", "UpdateBootVolume"],
)
@pytest.mark.parametrize("controller", ["first controller", "second controller"])
def test_what_was_half_made_is_removed(cloud: EmulatedCloud, play: Play, operation: str, controller: str) -> None:
    cloud.post("faults", [{"operation": operation, "times": 1, "status": 400, "code": "InvalidParameter"}])
    assert "InvalidParameter" in play(wait_for_ssh=False)["msg"]
    assert play(controller, state="absent")["remaining"] == []
    assert (kinds(cloud), cloud.ledger()["hourly"]) == ([], 0)


@pytest.mark.parametrize("operation", ["TerminateInstance", "DeleteSubnet", "DeleteInternetGateway", "DeleteVcn"])
def test_what_was_half_removed_is_removed(cloud: EmulatedCloud, play: Play, operation: str) -> None:
    play(wait_for_ssh=False)
    cloud.post("faults", [{"operation": operation, "times": 1, "status": 400, "code": "InvalidParameter"}])
    assert "InvalidParameter" in play(state="absent")["msg"]
    assert kinds(cloud) != []
    assert play("second controller", state="absent", compartment_id=None)["remaining"] == []
    assert kinds(cloud) == []


def test_a_boot_volume_that_someone_kept_is_removed(cloud: EmulatedCloud, play: Play) -> None:
    made = play(wait_for_ssh=False)["instance"]
    compute, _ = clients(cloud)
    compute.terminate_instance(made["id"], preserve_boot_volume=True)
    oci.wait_until(compute, compute.get_instance(made["id"]), "lifecycle_state", "TERMINATED", max_interval_seconds=1)
    assert "boot_volume" in kinds(cloud)
    assert play("second controller", state="absent")["remaining"] == []
    assert kinds(cloud) == []


def test_a_tag_that_was_taken_away_hides_nothing_from_the_ledger(cloud: EmulatedCloud, play: Play) -> None:
    made = play(wait_for_ssh=False)["instance"]
    compute, _ = clients(cloud)
    compute.update_instance(made["id"], oci.core.models.UpdateInstanceDetails(freeform_tags={}))
    assert play(state="absent")["remaining"] == []
    assert kinds(cloud) == []


def test_what_another_region_refuses_is_removed_here(cloud: EmulatedCloud, play: Play) -> None:
    play(wait_for_ssh=False)
    first_asked = sorted(cloud.regions)[0]
    assert first_asked != cloud.regions[0]  # where the stack is
    cloud.post("faults", [{"operation": "ListInstances", "status": 400, "code": "InvalidParameter", "times": 1}])
    assert "InvalidParameter" in play(state="absent")["msg"]
    assert kinds(cloud) == []


def test_what_may_not_be_seen_is_not_said_to_be_gone(cloud: EmulatedCloud, play: Play) -> None:
    play(wait_for_ssh=False)
    hidden = {"operation": "ListBootVolumes", "status": 404, "code": "NotAuthorizedOrNotFound", "times": 99}
    cloud.post("faults", [hidden | {"where": {"compartmentId": cloud.compartment}}])
    said = play("second controller", state="absent", compartment_id=None)
    assert said.get("failed") and "manage volumes" in said["msg"]
    assert kinds(cloud) == PARTS


def test_a_compartment_of_an_earlier_life_hinders_nothing(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    play(wait_for_ssh=False)
    ledger = tmp_path / "first controller" / name_of(tmp_path) / "ledger.jsonl"
    place = {"region": "us-ashburn-1", "compartment": "ocid1.compartment.x"}
    gone = json.dumps({"at": "2026-01-01T00:00:00Z", "event": "intent", "kind": "vcn", **place})
    ledger.write_text(f'{gone}\n{{"event": "ended"}}\n{ledger.read_text()}')
    assert play(state="absent")["remaining"] == []
    ledger.write_text(gone + "\n")  # one that goes on: it is said, with the way out
    assert "if that compartment is gone, remove" in play(state="absent")["msg"]
    ledger.unlink()


def test_nothing_is_launched_expired(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    cloud.post("faults", [{"operation": "LaunchInstance", "times": 99, "drop": True}])
    assert "cannot be reached" in play(wait_for_ssh=False)["msg"]
    cloud.post("faults", [])
    ledger = tmp_path / "first controller" / name_of(tmp_path) / "ledger.jsonl"
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    ledger.write_text("".join(json.dumps(line | {"expires": "2020-01-01T00:00:00Z"}) + "\n" for line in lines))
    assert play(wait_for_ssh=False)["instance"]["expires"] > "2026"


# -- what is not ours --------------------------------------------------------------------------------------


def test_what_has_our_name_but_not_our_tag_is_never_touched(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    play(wait_for_ssh=False)
    vcn = foreign_vcn(cloud, name_of(tmp_path))
    assert play(wait_for_ssh=False)["changed"] is False
    play(state="absent")
    assert [row["id"] for row in cloud.alive()] == [vcn.id]
    remove(clients(cloud)[1], "vcn", vcn.id)


def test_an_existing_vcn_is_used_and_stays(cloud: EmulatedCloud, play: Play) -> None:
    vcn = foreign_vcn(cloud, "studio")
    _, network = clients(cloud)
    models = oci.core.models
    details = models.CreateInternetGatewayDetails(compartment_id=cloud.compartment, vcn_id=vcn.id, is_enabled=True)
    gateway = network.create_internet_gateway(details).data
    wish = {"vcn_id": vcn.id, "subnet_cidr": "10.9.1.0/24", "wait_for_ssh": False}
    assert play(**wish)["changed"] is True
    assert kinds(cloud).count("vcn") == kinds(cloud).count("internet_gateway") == 1
    assert network.get_security_list(vcn.default_security_list_id).data.ingress_security_rules != []
    assert play(**wish)["changed"] is False
    play(state="absent")
    assert sorted(row["id"] for row in cloud.alive()) == sorted([vcn.id, gateway.id])
    remove(network, "internet_gateway", gateway.id)
    remove(network, "vcn", vcn.id)


def test_a_stranger_in_our_network_stops_its_removal_before_it_begins(cloud: EmulatedCloud, play: Play) -> None:
    play(wait_for_ssh=False)
    _, network = clients(cloud)
    vcn = next(row["id"] for row in cloud.alive() if row["kind"] == "vcn")
    details = oci.core.models.CreateSubnetDetails(
        compartment_id=cloud.compartment, vcn_id=vcn, cidr_block="10.20.9.0/24", display_name="someone's"
    )
    subnet = network.create_subnet(details).data
    assert "holds the subnet someone's" in play(state="absent")["msg"]
    assert "instance" in kinds(cloud)
    remove(network, "subnet", subnet.id)


def test_another_owners_stack_is_neither_used_nor_removed(cloud: EmulatedCloud, play: Play) -> None:
    play(owner="anna", wait_for_ssh=False)
    since = len(cloud.requests())
    for state in ("present", "stopped", "absent"):
        said = play("second controller", state=state, owner="berta", wait_for_ssh=False)["msg"]
        assert "is anna's, by its tag faceswap-owner: choose another name, or set owner to anna" in said
    assert writes(cloud, since) == []
    assert play("second controller", state="absent", owner="anna")["remaining"] == []


def test_destroying_a_wrong_name_says_what_stands(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    play(wait_for_ssh=False)
    name = name_of(tmp_path)
    said = play(state="absent", name="mistyped")
    assert said["changed"] is False
    assert f"other stacks stand and bill: {name} in {cloud.regions[0]}" in json.dumps(said["warnings"])


def test_a_boot_volume_that_someone_put_in_its_place_is_not_ours(cloud: EmulatedCloud, play: Play) -> None:
    play(wait_for_ssh=False)
    config = oci.config.from_file(cloud.env["OCI_CLI_CONFIG_FILE"])
    storage = oci.core.BlockstorageClient(config)
    volume = next(row for row in cloud.alive() if row["kind"] == "boot_volume")
    details = oci.core.models.UpdateBootVolumeDetails(display_name="repaired", freeform_tags={})
    storage.update_boot_volume(volume["id"], details)
    assert play("second controller", state="present", wait_for_ssh=False)["changed"]  # the pin, and no more
    tags = next(row for row in cloud.alive() if row["kind"] == "boot_volume")["tags"]
    assert tags == {}


def test_doors_that_were_opened_are_closed_again(cloud: EmulatedCloud, play: Play) -> None:
    play(wait_for_ssh=False)
    _, network = clients(cloud)
    models = oci.core.models
    rows = {row["kind"]: row["id"] for row in cloud.alive()}
    rule = models.AddSecurityRuleDetails(
        direction="INGRESS", protocol="all", source="0.0.0.0/0", source_type="CIDR_BLOCK"
    )
    network.add_network_security_group_security_rules(
        rows["network_security_group"],
        models.AddNetworkSecurityGroupSecurityRulesDetails(security_rules=[rule]),
    )
    open_list = models.UpdateSecurityListDetails(
        ingress_security_rules=[models.IngressSecurityRule(protocol="6", source="0.0.0.0/0")]
    )
    network.update_security_list(network.get_vcn(rows["vcn"]).data.default_security_list_id, open_list)
    closed = play(wait_for_ssh=False, ssh_sources=["203.0.113.9/32"])
    assert closed["diff"]["before"]["default_security_list"] == ["tcp from 0.0.0.0/0"]
    assert "all from 0.0.0.0/0" in closed["diff"]["before"]["security_rules"]
    found = network.list_network_security_group_security_rules(rows["network_security_group"]).data
    assert {rule.source for rule in found if rule.protocol == "6"} == {"203.0.113.9/32"}
    assert "all" not in {rule.protocol for rule in found}
    assert play(wait_for_ssh=False, ssh_sources=["203.0.113.9/32"])["changed"] is False


# -- bad input ---------------------------------------------------------------------------------------------


def own_copy(cloud: EmulatedCloud, folder: Path, mode: int) -> str:
    """The emulator's configuration with a copy of the API key in this mode."""
    key = folder / "copy.pem"
    key.write_bytes((cloud.state / "api_key.pem").read_bytes())
    key.chmod(mode)
    config = folder / "config"
    config.write_text((cloud.state / "config").read_text().replace(str(cloud.state / "api_key.pem"), str(key)))
    return str(config)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"profile": "WRONGKEY"}, "Oracle did not accept the signature of profile WRONGKEY"),
        ({"profile": "EXPIRED", "auth": "security_token"}, "The session token of profile EXPIRED expired at"),
        ({"profile": "NOBODY"}, "There is no profile NOBODY"),
        ({"config_file": "/nowhere/config"}, "/nowhere/config cannot be read"),
        ({"regions": ["us-nowhere-1"]}, "There is no region us-nowhere-1"),
        ({"regions": ["uk-london-1"]}, "The tenancy is not subscribed to the region uk-london-1"),
        ({"compartment_id": ""}, "compartment_id is empty"),
        ({"compartment_id": "faceswap"}, "compartment_id faceswap is not the OCID of a compartment"),
        (
            {"compartment_id": "ocid1.compartment.oc1..aaaa"},
            "There is no compartment ocid1.compartment.oc1..aaaa, or",
        ),
        (
            {"shapes": ["VM.GPU.A10.3"]},
            "The shape VM.GPU.A10.3 is not offered to this tenancy in .* near it are VM.GPU.A10",
        ),
        ({"shapes": ["VM.GPU.A10.1"], "ocpus": 4}, "has fixed ocpus and memory_gb: leave both out"),
        ({"shapes": ["VM.Standard.E5.Flex"]}, "is flexible: say how many ocpus"),
        ({"shapes": ["VM.Standard.E5.Flex"], "ocpus": 9999, "memory_gb": 16}, "ocpus 9999 is not what"),
        ({"availability_domains": ["AD-9"]}, "There is no availability domain AD-9 in us-ashburn-1"),
        ({"operating_system": "Windows"}, "There is no image of Windows 24.04 for VM.GPU.A10.1"),
        ({"image_id": "ocid1.image.oc1.iad.aaaa"}, "There is no image ocid1.image.oc1.iad.aaaa in us-ashburn-1"),
        ({"subnet_cidr": "10.99.0.0/24"}, "subnet_cidr 10.99.0.0/24 is not within vcn_cidr 10.20.0.0/16"),
        ({"vcn_cidr": "10.20.0.0/8"}, "vcn_cidr 10.20.0.0/8 is not an IPv4 network"),
        ({"ssh_sources": ["0.0.0.0/0"]}, "which is everyone"),
        ({"address_service": "https://nowhere.example", "ssh_sources": None}, "give the addresses that may enter"),
        ({"boot_volume_gb": 49}, "boot_volume_gb is 49, and Oracle makes none below 50: use 50 or more"),
        ({"boot_volume_vpus": 15}, "boot_volume_vpus is 15"),
        ({"cloud_config": {"write_files": "x" * 12000}}, "the user data has 1[0-9]{4} bytes .* Oracle takes 16384"),
        ({"cloud_config": {"ssh_keys": {}}}, "cloud_config must leave ssh_keys alone"),
        ({"name": "../elsewhere"}, "cannot name a stack"),
        ({"hours": 0}, "hours is 0"),
        ({"hours": 10**11}, "hours is 1"),
        ({"profile": "EXPIRED"}, "is a session profile: set auth to security_token"),
        ({"state_dir": "/dev/null/state"}, "could not do its part .*Not a directory.* look at the folder /dev/null"),
        ({"address_service": "https://h:x/", "ssh_sources": None}, "give the addresses that may enter"),
        ({"user": "me; reboot"}, "cannot be a login"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_made(
    cloud: EmulatedCloud, play: Play, arguments: dict[str, Any], sentence: str
) -> None:
    before = cloud.ledger()
    since = len(cloud.requests())
    said = play(**arguments)["msg"]
    assert re.search(sentence, said), said
    assert said.endswith((".", ")", "meant?")) and "\n" not in said
    assert (writes(cloud, since), cloud.ledger()) == ([], before)


def test_keys_that_are_mixed_up_or_open_to_all(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    since = len(cloud.requests())
    private = tmp_path / "login"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", private], check=True)
    assert "is a private key, which must stay here" in play(ssh_public_key_file=str(private))["msg"]
    private.chmod(0o644)
    assert "can be read by others, and ssh refuses it: chmod 600" in play(ssh_public_key_file=f"{private}.pub")["msg"]
    said = play(config_file=own_copy(cloud, tmp_path, 0o644))["msg"]
    assert "can be read by others (mode 0644): chmod 600" in said
    assert play(check=True, config_file=own_copy(cloud, tmp_path, 0o600))["changed"]
    assert writes(cloud, since) == []


def test_a_subnet_that_overlaps_with_another(cloud: EmulatedCloud, play: Play) -> None:
    vcn = foreign_vcn(cloud, "studio")
    _, network = clients(cloud)
    details = oci.core.models.CreateSubnetDetails(
        compartment_id=cloud.compartment, vcn_id=vcn.id, cidr_block="10.9.1.0/24", display_name="cutting room"
    )
    subnet = network.create_subnet(details).data
    said = play(vcn_id=vcn.id, subnet_cidr="10.9.1.128/25")["msg"]
    assert "overlaps with the subnet cutting room (10.9.1.0/24)" in said
    assert "is not within the VCN studio (10.9.0.0/16)" in play(vcn_id=vcn.id, subnet_cidr="10.8.0.0/24")["msg"]
    remove(network, "subnet", subnet.id)
    remove(network, "vcn", vcn.id)


@pytest.mark.parametrize(
    ("denied", "statement"),
    [
        ("inspect tenancies", "inspect tenancies in tenancy"),
        ("inspect compartments", "inspect compartments in tenancy"),
        ("manage virtual-network-family", "manage vcns in compartment"),
        (
            "manage instance-family",
            "manage instances, use vnics, manage subnets and network-security-groups in compartment",
        ),
        ("inspect instance-family", "manage instances in compartment"),
        ("inspect volume-family", "manage volumes in compartment"),
    ],
)
def test_a_policy_that_is_missing_is_named(cloud: EmulatedCloud, play: Play, denied: str, statement: str) -> None:
    launched = cloud.ledger()["launched"]
    cloud.post("policy", {"denied": [denied]})
    assert f"Allow group <your group> to {statement}" in play()["msg"].replace("'Allow", "Allow")
    assert cloud.ledger()["launched"] == launched


def test_another_run_at_work_is_not_joined(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    play(wait_for_ssh=False)
    with (tmp_path / "first controller" / name_of(tmp_path) / "ledger.jsonl").open("a") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        assert "Another run is at work on the stack" in play()["msg"]


# -- trust -------------------------------------------------------------------------------------------------


def ssh(made: dict[str, Any], known_hosts: str) -> subprocess.CompletedProcess[str]:
    options = [f"HostKeyAlias={made['host_key_alias']}", f'UserKnownHostsFile="{known_hosts}"']
    options += ["StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null", "BatchMode=yes"]
    command = ["ssh", *(part for option in options for part in ("-o", option)), "-i", made["private_key_file"]]
    return subprocess.run(
        [*command, f"{made['user']}@{made['address']}", "id -un"], capture_output=True, text=True, timeout=30
    )


@NEED_SSH
def test_the_posted_host_key_is_good_for_the_first_contact_only(
    cloud: EmulatedCloud, play: Play, tmp_path: Path
) -> None:
    first = play(wait_for_ssh=False)["instance"]
    pin = Path(first["known_hosts"])
    posted = pin.read_text()
    assert ssh(first, str(pin)).stdout == "ubuntu\n"
    assert play()["diff"] == {
        "before": {**play(check=True)["diff"]["before"], "host_key": "first"},
        "after": {**play(check=True)["diff"]["after"], "host_key": "rotated"},
    }
    assert pin.read_text() != posted
    assert ssh(first, str(pin)).stdout == "ubuntu\n"
    old = tmp_path / "old pin"
    old.write_text(posted)
    assert "Host key verification failed" in ssh(first, str(old)).stderr
    assert not list(pin.parent.glob("host_key-*"))


@NEED_SSH
@pytest.mark.parametrize("updates_before_the_fault", [0, 1])
def test_an_interrupted_rotation_is_finished(cloud: EmulatedCloud, play: Play, updates_before_the_fault: int) -> None:
    fault = {"operation": "UpdateInstance", "times": 1, "status": 400, "code": "InvalidParameter"}
    cloud.post("faults", [fault | {"skip": updates_before_the_fault}])
    assert "InvalidParameter" in play()["msg"]
    made = play()
    assert made["diff"]["after"]["host_key"] == "rotated"
    assert ssh(made["instance"], made["instance"]["known_hosts"]).stdout == "ubuntu\n"


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("faceswap-user", "-oProxyCommand=touch pwned"),
        ("faceswap-run", "x\n* ssh-ed25519 AAAA"),
        ("faceswap-host-key", None),
        ("faceswap-user", None),
    ],
)
def test_tags_that_were_changed_get_no_further(cloud: EmulatedCloud, play: Play, tag: str, value: str | None) -> None:
    made = play(wait_for_ssh=False)["instance"]
    compute, _ = clients(cloud)
    tags = {**compute.get_instance(made["id"]).data.freeform_tags, tag: value}
    details = oci.core.models.UpdateInstanceDetails(freeform_tags={k: v for k, v in tags.items() if v is not None})
    compute.update_instance(made["id"], details)
    pinned = Path(made["known_hosts"]).read_text()
    for state in ("present", "stopped"):
        said = play(state=state)["msg"]
        assert f"its tag {tag} is {'malformed' if value else 'missing'}: restore the tag" in said
    assert Path(made["known_hosts"]).read_text() == pinned


@NEED_SSH
def test_a_next_key_that_a_crash_lost_is_made_again(cloud: EmulatedCloud, play: Play) -> None:
    made = play(wait_for_ssh=False)["instance"]
    compute, _ = clients(cloud)
    tags = compute.get_instance(made["id"]).data.freeform_tags
    lost = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
    rotating = tags["faceswap-host-key"].replace("first:", "rotating:") + f",{lost}"
    details = oci.core.models.UpdateInstanceDetails(freeform_tags={**tags, "faceswap-host-key": rotating})
    compute.update_instance(made["id"], details)
    done = play()
    assert done["diff"]["after"]["host_key"] == "rotated"
    assert lost not in Path(made["known_hosts"]).read_text()
    assert ssh(done["instance"], made["known_hosts"]).stdout == "ubuntu\n"


@NEED_SSH
def test_a_machine_with_another_host_key_is_not_trusted(cloud: EmulatedCloud, play: Play) -> None:
    made = play(wait_for_ssh=False)["instance"]
    compute, _ = clients(cloud)
    tags = compute.get_instance(made["id"]).data.freeform_tags
    other = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
    details = oci.core.models.UpdateInstanceDetails(freeform_tags=tags | {"faceswap-host-key": f"first:{other}"})
    compute.update_instance(made["id"], details)
    assert "shows another host key than the one it was given: do not connect" in play()["msg"]


@NEED_SSH
def test_a_second_controller_is_pinned_and_makes_nothing(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    key = tmp_path / "my key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    first = play(ssh_public_key_file=f"{key}.pub")["instance"]
    since = len(cloud.requests())
    second = play("second controller", ssh_public_key_file=f"{key}.pub")
    assert writes(cloud, since) == []
    assert second["diff"]["after"]["pin"] == "as tagged"
    assert second["instance"]["known_hosts"] != first["known_hosts"]
    assert ssh(second["instance"], second["instance"]["known_hosts"]).stdout == "ubuntu\n"


def test_secrets_stay_in_files(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    said = json.dumps(play(wait_for_ssh=False))
    folder = tmp_path / "first controller" / name_of(tmp_path)
    ledger = (folder / "ledger.jsonl").read_text()
    for text in (said, ledger):
        assert "PRIVATE KEY" not in text and "user_data" not in text
    for path in (path for path in folder.iterdir() if path.suffix != ".pub"):
        assert path.stat().st_mode & 0o077 == 0, path

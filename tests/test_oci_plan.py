"""What a launch would be, and which try it becomes: the module by the real SDK against the emulator."""

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from emulated_cloud import PARTS, EmulatedCloud, emulated_cloud

Play = Callable[..., dict[str, Any]]

HOME, FRANKFURT, PHOENIX = "us-ashburn-1", "eu-frankfurt-1", "us-phoenix-1"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    with emulated_cloud(tmp_path_factory.mktemp("cloud"), waiting=0.2, no_ssh=True) as cloud:
        yield cloud


@pytest.fixture
def play(cloud: EmulatedCloud, tmp_path: Path) -> Iterator[Play]:
    """Run the module with these arguments for a stack of the test's own; in the end nothing may be left."""

    def run(check: bool = False, **arguments: Any) -> dict[str, Any]:
        arguments = {
            "name": "studio",
            "compartment_id": cloud.compartment,
            "state_dir": str(tmp_path / "stacks"),
            "ssh_sources": ["198.51.100.7/32"],
            "wait_for_ssh": False,
            "wait_s": 30,
        } | arguments
        return cloud.run_module(arguments, check)

    yield run
    cloud.scenarios()
    gone = run(state="absent")
    assert (gone.get("remaining"), kinds(cloud), cloud.ledger()["hourly"]) == ([], [], 0), gone


def kinds(cloud: EmulatedCloud) -> list[str]:
    return [row["kind"] for row in cloud.alive()]


def launches(cloud: EmulatedCloud, since: int) -> int:
    return sum(row["operation"] == "LaunchInstance" for row in cloud.requests()[since:])


def tries(said: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(row["shape"], row["availability_domain"][-4:], row["verdict"]) for row in said["plan"]["tries"]]


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def full(domain: str, **more: Any) -> dict[str, Any]:
    fault = {"operation": "LaunchInstance", "status": 500, "message": "Out of host capacity.", "times": None}
    return fault | {"where": {"availabilityDomain": f"Uocm:US-ASHBURN-{domain}"}} | more


# -- the plan ----------------------------------------------------------------------------------------------


def test_the_plan_says_what_where_and_how_much(cloud: EmulatedCloud, play: Play) -> None:
    said = play(check=True, shapes=["VM.GPU.A10.1", "VM.Standard.E5.Flex"], ocpus=4, memory_gb=32, hours=10)
    plan = said["plan"]
    assert kinds(cloud) == [] and said["instance"] == {}
    assert tries(said) == [
        ("VM.GPU.A10.1", "AD-1", "not_offered"),
        ("VM.GPU.A10.1", "AD-2", "possible"),
        ("VM.GPU.A10.1", "AD-3", "possible"),
        ("VM.Standard.E5.Flex", "AD-1", "possible"),
        ("VM.Standard.E5.Flex", "AD-2", "possible"),
        ("VM.Standard.E5.Flex", "AD-3", "possible"),
    ]
    gpu, small = plan["tries"][1], plan["tries"][3]
    volume = 100 * (0.0255 + 10 * 0.0017) / 744
    assert gpu["usd_per_hour"] == pytest.approx(2.0 + volume, abs=1e-4)
    assert gpu["usd"] == pytest.approx(10 * (2.0 + volume), abs=0.01)
    assert small["usd_per_hour"] == pytest.approx(4 * 0.03 + 32 * 0.002 + volume, abs=1e-4)
    limits = {row["name"]: (row["needed"], row["available"], row["scope"]) for row in small["limits"]}
    assert limits["standard-e5-core-count"] == (4, 100, "AD")
    assert limits["standard-e5-memory-count"][0] == 32
    assert (limits["total-storage-gb"][0], limits["vcn-count"][0], limits["vcn-count"][2]) == (100, 1, "REGION")
    assert gpu["capacity"] == "AVAILABLE" and "never with Free Tier" in gpu["account"]
    assert plan["makes"][:3] == ["instance", "boot_volume", "vcn"]
    assert plan["prices"].startswith("Oracle's price list of 20")
    table = "\n".join(plan["lines"])
    assert "USD for 10 h" in table and "gpu-a10-count: 1 of 4" in table and "20.06" in table


def test_the_price_list_of_the_repository_says_its_date(cloud: EmulatedCloud, play: Play) -> None:
    cloud.scenarios("prices_unreachable")
    plan = play(check=True)["plan"]
    assert plan["tries"][1]["usd_per_hour"] == pytest.approx(2.0, abs=0.02)
    assert "the list of 2026-" in plan["prices"] and "503" in plan["prices"]


def test_a_plan_of_what_stands_says_what_it_costs(cloud: EmulatedCloud, play: Play) -> None:
    play()
    said = play(check=True)
    assert said["changed"] is False
    assert "It stands: VM.GPU.A10.1 in Uocm:US-ASHBURN-AD-2, RUNNING, USD 2.01 an hour" in said["plan"]["lines"][0]
    play(state="stopped")
    stopped = play(check=True)
    assert "STOPPED" in stopped["plan"]["lines"][0] and stopped["plan"].keys() == said["plan"].keys()


def test_what_cannot_be_read_is_said_and_stops_nothing(cloud: EmulatedCloud, play: Play) -> None:
    cloud.scenarios("limits_unreadable", "report_unreadable")
    made = play()
    assert made["instance"]["lifecycle_state"] == "RUNNING"
    notes = " ".join(made["plan"]["notes"])
    assert "read resource-availability in tenancy" in notes and "manage compute-capacity-reports in tenancy" in notes


@pytest.mark.parametrize(
    ("scenario", "arguments", "verdict", "sentence"),
    [
        (
            "",
            {"shapes": ["BM.GPU.H100.8"]},
            "not_entitled",
            "not entitled to the shape BM.GPU.H100.8: .* Pay As You Go",
        ),
        (
            "",
            {"shapes": ["BM.GPU4.8"], "regions": [PHOENIX]},
            "wrong_region",
            f"does not offer .* {HOME} would: add that to regions",
        ),
        (
            "limit_zero",
            {},
            "limit",
            f"gpu-a10-count of service compute is 0 in {HOME}, .*-AD-2, .*-AD-3: ask Oracle for 1",
        ),
        (
            "capacity_nowhere",
            {},
            "capacity",
            "out of capacity for VM.GPU.A10.1 in .*AD-2, .*AD-3: name further shapes",
        ),
        ("quota_zero", {}, "limit", "quota"),
        ("", {"shapes": ["VM.Standard.E5.Flex"], "ocpus": 8, "memory_gb": 4}, "", "with 8 ocpus: 8 to 512"),
        ("", {"availability_domains": ["AD-1"]}, "not_offered", "not offered in .*AD-1, but in .*AD-2, .*AD-3"),
    ],
)
def test_four_reasons_have_four_sentences_and_remedies(
    cloud: EmulatedCloud, play: Play, scenario: str, arguments: dict[str, Any], verdict: str, sentence: str
) -> None:
    cloud.scenarios(*filter(None, [scenario]))
    since = len(cloud.requests())
    said = play(**arguments)
    assert said["failed"] and (not verdict or verdict in {row[2] for row in tries(said)})
    assert re.search(sentence, said["msg"]), said["msg"]
    assert kinds(cloud) == []
    if verdict != "capacity":  # which only the launch can tell
        assert launches(cloud, since) == 0
        asked = {row["operation"] for row in cloud.requests()[since:] if row["method"] != "GET"}
        assert asked <= {"CreateComputeCapacityReport"}


def test_a_limit_that_something_else_uses_up_says_so(cloud: EmulatedCloud, play: Play) -> None:
    play(name="other", shapes=["VM.GPU2.1"], availability_domains=["AD-2"])
    play(name="another", shapes=["VM.GPU2.1"], availability_domains=["AD-2"])
    said = play(shapes=["VM.GPU2.1"], availability_domains=["AD-2"])
    assert "gpu2-count" in said["msg"] and "2 of 2" in said["msg"]
    for name in ("other", "another"):
        play(name=name, state="absent")


# -- from try to try ---------------------------------------------------------------------------------------


def test_after_the_domains_the_shapes_and_then_the_regions(cloud: EmulatedCloud, play: Play) -> None:
    cloud.post("faults", [full("AD-1"), full("AD-2"), full("AD-3")])
    since = len(cloud.requests())
    made = play(regions=[HOME, FRANKFURT], shapes=["VM.GPU.A10.1", "VM.GPU3.1"])
    assert (made["instance"]["region"], made["instance"]["shape"]) == (FRANKFURT, "VM.GPU.A10.1")
    asked = [row for row in cloud.requests()[since:] if row["operation"] == "LaunchInstance"]
    assert [row["region"] for row in asked] == [HOME] * 4 + [FRANKFURT]
    assert made["diff"]["before"] == {}
    assert kinds(cloud) == PARTS and {row["region"] for row in cloud.alive()} == {FRANKFURT}
    assert [row[2] for row in tries(made)].count("capacity") == 4
    assert play(regions=[HOME, FRANKFURT])["changed"] is False  # found where it is
    assert play(regions=[FRANKFURT, HOME], state="stopped")["instance"]["lifecycle_state"] == "STOPPED"


def test_what_an_earlier_run_left_in_another_region_is_removed(cloud: EmulatedCloud, play: Play) -> None:
    cloud.post("faults", [{"operation": "LaunchInstance", "times": None, "drop": True}])
    assert "cannot be reached" in play()["msg"]
    assert "vcn" in kinds(cloud)
    cloud.post("faults", [full(f"AD-{number}") for number in (1, 2, 3)])
    made = play(regions=[HOME, FRANKFURT])
    assert made["diff"]["before"] == {f"network in {HOME}": "left over"}
    assert made["instance"]["region"] == FRANKFURT and {row["region"] for row in cloud.alive()} == {FRANKFURT}


def test_the_order_of_the_domains_is_the_users(cloud: EmulatedCloud, play: Play) -> None:
    cloud.scenarios("capacity_in_one_domain")  # AD-2, and the report says so
    since = len(cloud.requests())
    assert play()["instance"]["availability_domain"].endswith("AD-3")
    assert launches(cloud, since) == 1  # what is reported full was to be the last
    play(state="absent")
    since = len(cloud.requests())
    assert play(availability_domains=["AD-2", "AD-3"])["instance"]["availability_domain"].endswith("AD-3")
    assert launches(cloud, since) == 2


def test_a_limit_that_only_the_launch_knows_skips_what_it_rules_out(cloud: EmulatedCloud, play: Play) -> None:
    fault = {"operation": "LaunchInstance", "status": 400, "code": "LimitExceeded", "times": None}
    message = "The following service limits were exceeded: gpu-a10-count. Request a service limit increase."
    cloud.post("faults", [full("AD-2", **fault, message=message)])
    since = len(cloud.requests())
    made = play(shapes=["VM.GPU.A10.1", "VM.GPU.A10.2", "VM.GPU2.1"], availability_domains=["AD-2", "AD-3"])
    assert made["instance"]["availability_domain"].endswith("AD-3")
    play(state="absent")
    said = play(shapes=["VM.GPU.A10.1", "VM.GPU.A10.2"], availability_domains=["AD-2"])
    assert launches(cloud, since) == 3  # A10.1 in AD-2 and AD-3, then A10.1 in AD-2: A10.2 needs more of it
    assert re.search(r"gpu-a10-count of service compute is exceeded in .*AD-2, .* ask Oracle .* 1 more", said["msg"])
    assert kinds(cloud) == []


def test_waiting_for_capacity_shows_itself_and_ends(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    cloud.scenarios("capacity_returns")
    began = time.monotonic()
    made = play(capacity_wait_s=60)
    assert made["instance"]["lifecycle_state"] == "RUNNING" and time.monotonic() - began > 5
    told = json.loads((tmp_path / "stacks" / "studio" / "progress.json").read_text())["said"]
    assert any("out of capacity" in line for line in told) and told[-1].endswith("is RUNNING")
    play(state="absent")
    cloud.scenarios("capacity_nowhere")
    assert "and was for 0:02: " in play(capacity_wait_s=2)["msg"]
    assert kinds(cloud) == []


def test_a_launch_that_comes_to_nothing_leaves_nothing(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    cloud.post("faults", [{"operation": "CreateSubnet", "status": 400, "code": "InvalidParameter", "times": None}])
    assert "InvalidParameter" in play()["msg"]
    assert kinds(cloud) == []
    assert not list((tmp_path / "stacks" / "studio").glob("known_hosts")) + list(tmp_path.glob("**/host_key-*"))
    since = len(cloud.requests())
    assert play(state="absent")["changed"] is False
    assert not [row for row in cloud.requests()[since:] if row["method"] == "DELETE"]


def test_a_vcn_of_ones_own_lies_in_one_region(cloud: EmulatedCloud, play: Play) -> None:
    said = play(regions=[HOME, FRANKFURT], vcn_id="ocid1.vcn.oc1.iad.x")
    assert "vcn_id lies in one region" in said["msg"]


# -- cut off -----------------------------------------------------------------------------------------------


def lose_the_launch(cloud: EmulatedCloud, play: Play) -> None:
    """A run whose launch is carried out, without an answer and not listed for some time."""
    cloud.scenarios("listed_late")
    cloud.post("settings", {"unlisted": 8})  # longer than the first run goes on trying
    cloud.post("faults", [{"operation": "LaunchInstance", "times": None, "effect": "after", "drop": True}])
    assert "cannot be reached" in play()["msg"]
    cloud.post("faults", [])


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_launch_without_an_answer_that_is_not_listed_yet_is_found(
    cloud: EmulatedCloud, play: Play, state: str
) -> None:
    launched = cloud.ledger()["launched"]
    lose_the_launch(cloud, play)
    # The first choice is another one now, and the instance stands where the answer was lost.
    assert play(state=state, availability_domains=["AD-3"]).get("failed") is None
    assert cloud.ledger()["launched"] == launched + 1
    assert kinds(cloud) == (PARTS if state == "present" else [])


@pytest.mark.parametrize("elsewhere", ["region", "compartment"])
def test_a_launch_without_an_answer_is_looked_for_where_it_was_asked(
    cloud: EmulatedCloud, play: Play, elsewhere: str
) -> None:
    launched = cloud.ledger()["launched"]
    lose_the_launch(cloud, play)
    other = {"regions": [FRANKFURT]} if elsewhere == "region" else {"compartment_id": cloud.tenancy}
    assert f"has an instance in {HOME}, compartment {cloud.compartment}: destroy it first" in play(**other)["msg"]
    assert cloud.ledger()["launched"] == launched + 1


def test_who_waits_for_capacity_sees_another_controllers_launch(
    cloud: EmulatedCloud, play: Play, tmp_path: Path
) -> None:
    cloud.scenarios("capacity_nowhere")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(play, capacity_wait_s=60)
        end = time.monotonic() + 30
        while "no free host" not in read(tmp_path / "stacks" / "studio" / "progress.json"):
            assert time.monotonic() < end
            time.sleep(0.1)
        cloud.scenarios()
        made = play(state_dir=str(tmp_path / "other"), shapes=["VM.GPU3.1"])
        assert made["instance"]["lifecycle_state"] == "RUNNING"
        assert "Another controller has launched studio" in waiting.result()["msg"]
    assert kinds(cloud).count("instance") == 1


def test_an_instance_that_dies_after_its_run_was_cut_off_is_replaced(cloud: EmulatedCloud, play: Play) -> None:
    cloud.scenarios("capacity_in_work_request")
    cloud.post("faults", [{"operation": "GetInstance", "times": 4, "drop": True}])
    assert "cannot be reached" in play()["msg"]  # after the launch was accepted
    made = play()
    assert made["instance"]["availability_domain"].endswith("AD-3")
    assert kinds(cloud) == PARTS


def test_what_could_not_be_removed_is_said_to_bill(cloud: EmulatedCloud, play: Play) -> None:
    cloud.scenarios("stuck_in_provisioning")
    cloud.post(
        "faults", [{"operation": "TerminateInstance", "status": 400, "code": "InvalidParameter", "times": None}]
    )
    said = play()
    assert "is there, PROVISIONING, and may bill: run the same again" in json.dumps(said["warnings"])
    assert "instance" in kinds(cloud)


def test_a_refused_plan_pins_no_image(cloud: EmulatedCloud, play: Play, tmp_path: Path) -> None:
    cloud.scenarios("limit_zero")
    assert play()["failed"]
    assert '"image"' not in read(tmp_path / "stacks" / "studio" / "ledger.jsonl")


# -- preemptible -------------------------------------------------------------------------------------------


def test_a_preemptible_instance_costs_half_and_is_replaced_when_it_was_taken(
    cloud: EmulatedCloud, play: Play
) -> None:
    cloud.scenarios("preempted")
    made = play(shapes=["VM.GPU3.1"], preemptible=True)
    assert made["plan"]["tries"][0]["usd_per_hour"] == pytest.approx(1.475, abs=0.02)
    assert "is preemptible, and Oracle stops none of these" in play(state="stopped")["msg"]
    end = time.monotonic() + 20
    while "instance" in kinds(cloud) and time.monotonic() < end:
        time.sleep(0.1)
    cloud.scenarios()
    again = play(shapes=["VM.GPU3.1"], preemptible=True)
    assert again["instance"]["id"] != made["instance"]["id"] and kinds(cloud) == PARTS
    assert "Oracle took it back, for it was preemptible" in json.dumps(again["warnings"])
    assert sorted(row["kind"] for row in again["resources"]) == PARTS  # nothing that went with the first


def test_a_shape_that_cannot_be_preemptible_is_said(cloud: EmulatedCloud, play: Play) -> None:
    made = play(preemptible=True)
    assert "VM.GPU.A10.1 cannot be preemptible: it is launched, and billed, on demand" in made["plan"]["notes"][0]
    assert made["plan"]["tries"][1]["preemptible"] is False

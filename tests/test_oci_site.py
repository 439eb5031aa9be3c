"""`inventory/oci` as a user plays it, against the emulator: made, reached by later stages, and gone again."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from emulated_cloud import EmulatedCloud, emulated_cloud
from oci_emulator.guest import what_is_missing

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=f"an instance that answers: {what_is_missing()}")
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    with emulated_cloud(tmp_path_factory.mktemp("a cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def run(cloud: EmulatedCloud, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program in the checkout, with both inventories, as a user whose home is empty.

    Beside the stack of inventory/oci there is a second one, as for a second person.
    """
    home = tmp_path_factory.mktemp("home")
    second = home / "hosts.yml"
    second.write_text("oci: {hosts: {berta: }}\n")
    values = json.dumps({"oci_instance_compartment_id": cloud.compartment})
    env = cloud.env | {"HOME": str(home), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"}

    def run(*words: str, interrupt_when: Callable[[], bool] | None = None) -> subprocess.CompletedProcess[str]:
        """`interrupt_when`: press Ctrl-C as soon as that is so."""
        if words[0] == "faceswap-oci":
            given = [f"-eoci_instance_compartment_id={cloud.compartment}"]
        else:
            given = ["-e", values]
        command = [str(PROGRAMS / words[0]), *words[1:], "-i", "inventory/oci", "-i", str(second), *given]
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        if interrupt_when:
            while not interrupt_when():
                assert process.poll() is None, "it was over before"
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=300)
        done = subprocess.CompletedProcess(command, process.returncode, said, errors)
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done

    return run


def recap(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """The counts of each host."""
    rows = re.findall(r"^(\S+) +: (ok=.*)$", done.stdout.rpartition("PLAY RECAP")[2], re.M)
    return {host: {key: int(n) for key, n in re.findall(r"(\w+)=(\d+)", text)} for host, text in rows}


def standing(cloud: EmulatedCloud) -> Counter[str]:
    """What exists, in the emulator's ledger: how many of each kind."""
    return Counter(row["kind"] for row in cloud.ledger()["resources"] if row["ended"] is None)


def test_check_mode_asks_and_makes_nothing(run: Run, cloud: EmulatedCloud) -> None:
    shown = run("ansible-playbook", "site.yml", "--tags", "oci_instance", "--check", "--diff")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "+    vcn: 10.20.0.0/16" in shown.stdout
    assert {host: counts["changed"] for host, counts in recap(shown).items()} == {"studio": 1, "berta": 1}
    assert "it bills" not in shown.stdout
    assert standing(cloud) == Counter()


def test_the_plan_is_a_table_for_people_and_makes_nothing(run: Run, cloud: EmulatedCloud) -> None:
    shown = run("faceswap-oci", "run", "--tags", "plan")
    assert shown.returncode == 0 and "\n0 changed\n" in shown.stdout, shown.stdout + shown.stderr
    for part in ("To be made: instance, boot volume, VCN", "USD for 24 h", "gpu-a10-count: 1 of 4", "  48.14  "):
        assert shown.stdout.count(part) >= 2, shown.stdout  # for each of the two
    assert standing(cloud) == Counter()
    cloud.scenarios("limit_zero")
    refused = run("faceswap-oci", "run", "--tags", "plan")
    cloud.scenarios()
    assert refused.returncode == 1
    assert refused.stdout.count("USD for 24 h") == 2 and "0 changed" not in refused.stdout  # what it would cost
    assert re.search(r"The limit gpu-a10-count of service compute is 0 in us-ashburn-1.*ask Oracle", refused.stderr)


def test_ctrl_c_while_an_instance_is_made_says_that_it_may_bill(run: Run, cloud: EmulatedCloud) -> None:
    cloud.post("settings", {"waiting": 15})
    stopped = run(
        "faceswap-oci", "run", "--tags", "oci_instance", interrupt_when=lambda: standing(cloud)["instance"] == 2
    )
    cloud.post("settings", {"waiting": 0.5})
    assert stopped.returncode == 130, stopped.stdout + stopped.stderr
    assert "An instance may have been made, and then it bills" in stopped.stderr and "destroy" in stopped.stderr
    cloud.scenarios("clock_skew")
    refused = run("faceswap-oci", "destroy")
    cloud.scenarios()
    assert refused.returncode == 1 and "may bill until it is destroyed" in refused.stdout, refused.stdout
    assert run("faceswap-oci", "destroy").returncode == 0
    assert standing(cloud) == Counter()


def test_one_run_makes_the_instances_and_reaches_them(run: Run, cloud: EmulatedCloud) -> None:
    played = run("ansible-playbook", "site.yml", "--tags", "oci_instance,nvidia_cuda")
    assert played.returncode == 0, played.stdout + played.stderr
    for name in ("studio", "berta"):
        line = re.search(rf"^ *{name}: (ubuntu@[\d.]+), VM.GPU.A10.1 in [\w-]+, RUNNING; .*$", played.stdout, re.M)
        assert line and re.search(
            r"until it is destroyed, and .* \(meant to be gone \d{4}-\d\d-\d\dT[\d:]+Z\)$", line[0]
        )
        [login] = re.findall(rf"^ *(ssh .* {line[1]})$", played.stdout, re.M)  # to be copied as it is
        there = subprocess.run([*shlex.split(login), "id", "-un"], capture_output=True, text=True, timeout=60)
        assert there.stdout == "ubuntu\n", there.stderr
    said = played.stdout.partition("TASK [nvidia_cuda : Say what was found]")[2]
    assert set(re.findall(r"^ok: \[(\w+)\]", said, re.M)) == {"studio", "berta"}
    assert standing(cloud)["instance"] == standing(cloud)["vcn"] == 2
    for name in ("studio", "berta"):  # what went on meanwhile
        assert f"\n{name}: Launching VM.GPU.A10.1 in Uocm:US-ASHBURN-AD-2\n" in played.stdout
        assert f"\n{name}: VM.GPU.A10.1 in Uocm:US-ASHBURN-AD-2 is RUNNING\n" in played.stdout


def test_a_later_stage_alone_finds_them_and_a_second_run_changes_nothing(run: Run, cloud: EmulatedCloud) -> None:
    alone = run("ansible-playbook", "site.yml", "--tags", "nvidia_cuda")
    assert alone.returncode == 0 and set(recap(alone)) == {"studio", "berta"}, alone.stdout + alone.stderr
    again = run("ansible-playbook", "site.yml", "--tags", "oci_instance")
    assert again.returncode == 0 and sum(counts["changed"] for counts in recap(again).values()) == 0, again.stdout
    assert standing(cloud)["instance"] == 2


def test_what_destroy_would_remove_can_be_seen_first(run: Run, cloud: EmulatedCloud) -> None:
    there = standing(cloud)
    shown = run("faceswap-oci", "destroy", "--check")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for name in ("studio", "berta"):
        said = shown.stdout.partition(f"  of {name} would be removed:\n")[2]
        assert re.match(rf"  instance {name} in [\w-]+\n  boot_volume {name} ", said), shown.stdout
    assert "things of" not in shown.stdout
    assert standing(cloud) == there


def test_the_wrapper_destroys_them(run: Run, cloud: EmulatedCloud) -> None:
    gone = run("faceswap-oci", "destroy")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert standing(cloud) == Counter()
    for name in ("studio", "berta"):
        assert f"  {name}: Removing 8 things of {name} in us-ashburn-1\n" in gone.stdout
        assert f"  0 things of {name} left in eu-frankfurt-1, us-ashburn-1, us-phoenix-1\n" in gone.stdout
    again = run("faceswap-oci", "destroy")  # where the inventory plugin finds nothing
    assert again.returncode == 0 and "\n0 changed\n" in again.stdout, again.stdout + again.stderr

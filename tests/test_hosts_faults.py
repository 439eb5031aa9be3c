"""A job on a real host is cut off in every way: each ends with a finished job and at most one save interval lost.

One host serves all, with the engine and the faces of one job; each test trains on from where the one before stopped.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import waiting
from testhosts.hosts import TestHosts, test_hosts

ROOT = Path(__file__).parent.parent
NAME = "studio"
JOB = "/srv/faceswap-oci/jobs/cut-off"
PROGRAM = "/srv/faceswap-oci/bin/units.py"
UNIT = r"faceswap-oci@cut\x2doff-train.service"
SAVE_INTERVAL = 10
UNREACHABLE = 4
pytestmark = pytest.mark.usefixtures("need_hosts")


wait_until = partial(waiting.wait_until, seconds=400, pause=0.5)


class Play:
    """ansible-playbook under way."""

    def __init__(self, words: list[str], env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    @property
    def output(self) -> str:
        """What it has said so far."""
        return self.log.read_text()

    def end(self, seconds: float = 600) -> int:
        """Return the exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it and all its workers, each of which has a session of its own, at once."""
        parents: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        doomed = [self.process.pid]
        for parent in doomed:
            doomed += [child for child, its_parent in parents.items() if its_parent == parent]
        for number in doomed:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait()


class Site:
    """The host, the job, and Ansible as a user calls it."""

    def __init__(self, hosts: TestHosts, folder: Path) -> None:
        self.hosts = hosts
        self.folder = folder

    @contextmanager
    def playing(self, *words: str, playbook: str = "playbooks/faceswap_run.yml", **values: Any) -> Iterator[Play]:
        """Start a play; in the end it is gone."""
        settings = {
            "faceswap_install_engine": "builtin",
            "faceswap_run_engine": "builtin",
            "faceswap_run_trainer": "lightweight",
            "faceswap_run_job": "cut-off",
            "faceswap_run_out": str(self.folder / "out"),
            "faceswap_run_source_a": str(ROOT / "demo" / "clipA.mp4"),
            "faceswap_run_source_b": str(ROOT / "demo" / "clipB.mp4"),
            "faceswap_run_consent_a": str(ROOT / "demo" / "consent" / "a.yml"),
            "faceswap_run_consent_b": str(ROOT / "demo" / "consent" / "b.yml"),
            "faceswap_run_batch_size": 4,
            "faceswap_run_save_interval": SAVE_INTERVAL,
        }
        # Its own connection: hosts of other tests have the same addresses.
        with tempfile.TemporaryDirectory() as sockets:
            command = [str(Path(sys.executable).parent / "ansible-playbook"), playbook]
            command += ["-i", str(self.hosts.inventory), "-e", json.dumps(settings | values), *words]
            env = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets}
            play = Play(command, env, self.folder / "play.txt")
            try:
                yield play
            finally:
                if play.process.poll() is None:
                    play.kill()

    def play(self, *words: str, **values: Any) -> Play:
        """Play to the end."""
        with self.playing(*words, **values) as play:
            play.end()
        return play

    @contextmanager
    def cut(self) -> Iterator[None]:
        """For this time the host's cable is pulled."""
        self.hosts.cut(NAME)
        try:
            yield
        finally:
            self.hosts.mend(NAME)

    def sudo(self, command: str) -> str:
        """What a command of root says on the host; fails where it fails."""
        done = self.hosts.run(NAME, f"sudo sh -c {shlex.quote(command)}")
        assert done.returncode == 0, done
        return done.stdout

    def read(self, name: str) -> dict[str, Any]:
        """A record of the supervisor."""
        content: dict[str, Any] = json.loads(self.sudo(f"cat {JOB}/stages/train/{name}.json"))
        return content

    def log(self) -> str:
        """The training's log."""
        return self.sudo(f"cat {JOB}/stages/train/log.txt")

    def iterations(self) -> int:
        """How many are saved."""
        saved = self.sudo(f"cat {JOB}/model/*_state.json 2> /dev/null || echo '{{}}'")
        return int(json.loads(saved).get("iterations", 0))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A host on which everything but the training is done."""
    with test_hosts(tmp_path_factory.mktemp("a host"), {NAME: "bookworm"}) as hosts:
        made = Site(hosts, tmp_path_factory.mktemp("a site"))
        for words in ({"playbook": "playbooks/faceswap_install.yml"}, {}):
            play = made.play(*(["--tags", "extract"] if not words else []), **words)
            assert play.process.returncode == 0, play.output
        yield made


class Training:
    """One training of `more` iterations that is disturbed in the middle, watched by a play."""

    def __init__(self, site: Site, play: Play, total: int) -> None:
        self.site = site
        self.play = play
        self.total = total
        self.logged = len(site.log()) if site.iterations() else 0
        first = site.iterations()
        # Watched, well after a save, and long before the end.
        self._wait_for(lambda: f"{NAME}: train " in play.output)
        self._wait_for(lambda: self.done() > first + SAVE_INTERVAL + 3)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or self.play.process.poll() is not None)
        assert self.play.process.poll() is None, self.play.output

    def done(self) -> int:
        """Where the training stands, as a watcher sees it."""
        text = self.site.hosts.run(NAME, f"sudo cat {JOB}/stages/train/progress.json").stdout
        progress = json.loads(text) if text else {}
        return int(progress["done"]) if progress.get("state") == "running" else 0

    def new_log(self) -> str:
        """What was logged of this training."""
        return self.site.log()[self.logged :]

    def starts(self) -> int:
        """How often the engine was started for it."""
        return len(re.findall(r"faceswap\.py train ", self.new_log()))

    def resumed(self) -> int:
        """From which iteration it went on the last time."""
        return int(re.findall(r"Resuming from iteration (\d+)", self.new_log())[-1])

    def lost(self, seen: int) -> int:
        """How many of the iterations that were `seen` were done once more: none where the engine went on."""
        return max(0, seen - self.resumed()) if self.starts() > 1 else 0

    def finished(self) -> bool:
        """Tell whether all of it is there, and nothing is running or to be brought back any more."""
        state = self.site.read("state")
        assert self.site.hosts.run(NAME, f"sudo test -e {JOB}/stages/train/wanted").returncode == 1
        return bool(state["complete"]) and state["iterations"] == self.site.iterations() == self.total


@contextmanager
def training(site: Site, more: int) -> Iterator[Training]:
    """Train, in a play that watches."""
    total = site.iterations() + more
    try:
        with site.playing("--tags", "train", faceswap_run_iterations=total) as play:
            yield Training(site, play, total)
    except BaseException:
        site.sudo(f"{PROGRAM} stop {JOB}")  # the next test is to begin in peace
        raise


def lost(name: str, iterations: int) -> None:
    """Print and judge what a fault has cost."""
    print(f"\niterations lost when {name}: {iterations} of at most {SAVE_INTERVAL}")
    assert 0 <= iterations <= SAVE_INTERVAL


def test_the_controller_is_killed(site: Site) -> None:
    with training(site, 300) as under_way:
        seen = under_way.done()
        under_way.play.kill()
    assert site.sudo(f"systemctl is-active '{UNIT}'") == "active\n"
    again = site.play("--tags", "train", "-v", faceswap_run_iterations=under_way.total)
    assert again.process.returncode == 0, again.output
    assert "it was running already" in again.output, again.output
    assert under_way.finished()
    assert under_way.starts() == 1
    lost("the controller is killed", under_way.lost(seen))


def test_ssh_is_cut(site: Site) -> None:
    with training(site, 250) as under_way:
        seen = under_way.done()
        with site.cut():
            wait_until(lambda: "the host does not answer; the job goes on there" in under_way.play.output)
        assert under_way.play.end() == 0, under_way.play.output
    assert "the host answers again" in under_way.play.output
    assert under_way.finished()
    assert under_way.starts() == 1
    lost("SSH is cut", under_way.lost(seen))


def test_the_host_stays_away(site: Site) -> None:
    """Patience ends with one sentence, and the training goes on."""
    total = site.iterations() + 150
    play_words = ("--tags", "train", "-e", '{"ansible_ssh_timeout": 2}')
    with site.playing(*play_words, faceswap_run_iterations=total, faceswap_run_patience_s=3) as play:
        under_way = Training(site, play, total)
        with site.cut():
            code = play.end()
    assert code == UNREACHABLE, play.output
    assert re.search(
        r"studio has not answered for 0:\d+ \(.*\), and stage train goes on there without this machine: run the "
        r"same command again to watch it\.",
        re.sub(r"\s+", " ", play.output),
    ), play.output
    again = site.play("--tags", "train", faceswap_run_iterations=total)
    assert again.process.returncode == 0, again.output
    assert under_way.finished() and under_way.starts() == 1


def test_the_host_reboots(site: Site) -> None:
    boot = site.sudo("cat /proc/sys/kernel/random/boot_id")
    with training(site, 120) as under_way:
        seen = under_way.done()
        site.hosts.reboot(NAME)
        assert under_way.play.end() == 0, under_way.play.output
    assert site.sudo("cat /proc/sys/kernel/random/boot_id") != boot
    assert under_way.finished()
    assert under_way.starts() == 2
    reached = re.search(r"Stopped on request at iteration (\d+)", under_way.new_log())
    assert reached and "stopped and saved at" in under_way.new_log(), under_way.new_log()
    assert under_way.resumed() >= seen
    lost("the host reboots", int(reached[1]) - under_way.resumed())


def test_the_power_fails(site: Site) -> None:
    with training(site, 120) as under_way:
        seen = under_way.done()
        machine = site.hosts.machines[NAME]
        machine.stop()
        machine.start()
        assert under_way.play.end() == 0, under_way.play.output
    assert under_way.finished()
    assert under_way.starts() == 2
    lost("the power fails", under_way.lost(seen))


@pytest.mark.parametrize("victim", ["engine_pid", "supervisor_pid"])
def test_the_trainer_or_its_supervisor_is_killed(site: Site, victim: str) -> None:
    with training(site, 120) as under_way:
        pid = site.read("state")[victim]
        # In one go: a moment later it may be on again.
        seen = int(json.loads(site.sudo(f"cat {JOB}/stages/train/progress.json; kill -KILL {pid}"))["done"])
        assert under_way.play.end() == 0, under_way.play.output
    assert under_way.finished()
    assert under_way.starts() == 2
    reached = re.search(r"ended by SIGKILL at iteration (\d+), saved at \d+", under_way.new_log())
    # A supervisor that is killed tells nothing any more, and what it told last may be older than the last save.
    lost(f"{victim} is killed", under_way.lost(int(reached[1]) if reached else seen))


def test_the_disk_becomes_full_in_the_middle_of_extract(site: Site) -> None:
    small = JOB.replace("cut-off", "small")
    site.sudo(f"mkdir -m 750 {small}; mount -t tmpfs -o size=4m,mode=750,uid=faceswap,gid=faceswap small {small}")
    values = {"faceswap_run_job": "small", "faceswap_run_need_mb": 1}
    full = site.play("--tags", "extract", **values)
    assert full.process.returncode == 2, full.output
    said = re.sub(r"\s+", " ", full.output)
    assert f"The disk of {small} is full: free some room, or set faceswap_run_dir to a larger disk" in said
    assert site.sudo(f"ls {small}") == "consent\ninput\nstages\n"  # the records stay, half a result is gone
    site.sudo(f"mount -o remount,size=60m {small}")
    mended = site.play("--tags", "extract", **values)
    assert mended.process.returncode == 0, mended.output
    assert int(site.sudo(f"ls {small}/faces_a | wc -l")) == 125

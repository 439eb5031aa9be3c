"""What each of the emulator's scenarios must come to, alone and in pairs, and the runner that sees to it.

A case is played as a user plays it, the whole role by ansible-playbook, and judged by the emulator's own ledger.
"""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import oci
from emulated_cloud import COLLECTIONS, PARTS, ROOT, EmulatedCloud, emulated_cloud
from oci_emulator.guest import what_is_missing

_PARTS = frozenset(PARTS)
_WAITING_S = 0.2  # what the emulator takes for anything
_AT_ONCE = 2
_PREEMPTED_WITHIN_S = 30
_SLOW_S = 240  # a play that takes longer hangs

# The moments of a run in their order; at `quota` and `capacity` a launch is weighed, after it has been understood.
MOMENTS = ("sign_in", "look", "plan", "network", "launch", "quota", "capacity", "provisioning", "running")

_A10, _P100 = "VM.GPU.A10.1", "VM.GPU2.1"
_PREEMPTIBLE = {"shapes": [_P100], "preemptible": True}

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  tasks:
    - ansible.builtin.include_role:
        name: oci_instance
        tasks_from: "{{ entry_point }}"
"""


@dataclass(frozen=True)
class Trouble:
    """A scenario, and what a run in its presence must come to.

    It strikes at the moment `first` for the first time, or has then what it strikes when all is taken down. `closes`
    is the moment from which on AD-2 is out of the question, `domain` where alone it strikes, `shape` with what alone.
    `ends` is the moment at which the run ends in the sentence `says`; without it, the instance must be made.
    Two that set the same thing (`sets`) are not to be had together. `role` holds variables of the role without its
    prefix, and `paired` those for pairs only. `locks_out`: as long as it lasts nothing is answered, so that there is
    no destroying either. `takes_back`: the instance does not last.
    """

    name: str
    first: str
    closes: str = ""
    domain: str = ""
    shape: str = ""
    ends: str = ""
    says: str = ""
    sets: str = ""
    role: Mapping[str, Any] = field(default_factory=dict)
    paired: Mapping[str, Any] = field(default_factory=dict)
    expires_at: str = ""  # the operation that is the first to be refused to the session, instead of the scenario's
    locks_out: bool = False
    takes_back: bool = False
    any_domain: bool = False
    ssh: bool = False  # alone, it is played up to the pinned host key


_ASK_ORACLE = r"gpu-a10-count.* ask Oracle"
_RAISE_QUOTA = r"gpu-a10-count.* raise .*quota"
_TOKEN = {"profile": "TOKEN", "auth": "security_token"}
_SESSION = r"session.*oci session (refresh|authenticate)"

TROUBLES = (
    # Capacity
    Trouble("capacity_in_one_domain", "plan", closes="plan", domain="AD-2"),
    Trouble("capacity_report_lies", "capacity", closes="capacity", domain="AD-2"),
    Trouble("capacity_nowhere", "plan", ends="capacity", says=r"out of capacity for .*capacity_wait_s"),
    Trouble(
        "capacity_returns",
        "plan",
        any_domain=True,
        role={"capacity_wait_s": 40},
        paired={"shapes": [_A10, "VM.GPU.A10.2"]},  # more tries a round: less time between rounds
    ),
    # The launch that was accepted
    Trouble("capacity_in_work_request", "provisioning", closes="provisioning", domain="AD-2", ssh=True),
    Trouble("dies_in_provisioning", "provisioning", closes="provisioning", domain="AD-2"),
    Trouble("stuck_in_provisioning", "provisioning", closes="provisioning", domain="AD-2"),
    # Limits and quotas, all of A10s
    Trouble("limit_in_one_domain", "plan", closes="plan", domain="AD-2", shape=_A10, sets="limit"),
    Trouble("limit_unforeseen", "launch", closes="launch", domain="AD-2", shape=_A10),
    Trouble("limit_zero", "plan", shape=_A10, ends="plan", says=_ASK_ORACLE, sets="limit"),
    Trouble("quota_zero", "plan", shape=_A10, ends="plan", says=_RAISE_QUOTA, sets="quota"),
    Trouble("quota_exceeded", "quota", shape=_A10, ends="quota", says=_RAISE_QUOTA, sets="quota"),
    Trouble("limits_unreadable", "plan"),
    # What cannot be read, or is not so
    Trouble("report_unreadable", "plan"),
    Trouble("prices_unreachable", "plan"),
    Trouble("shape_not_found_in_one_domain", "launch", closes="launch", domain="AD-2"),
    Trouble("listed_late", "network", ssh=True),
    # Answers
    Trouble("throttled", "look", ssh=True),
    Trouble("server_error", "network"),
    Trouble("unavailable", "look"),
    Trouble("launch_answer_lost", "launch", ssh=True),
    Trouble("network_answer_lost", "network"),
    Trouble("slow_answers", "look"),
    Trouble("not_ready", "network"),
    # Taking down
    Trouble("terminate_takes_long", "running"),
    Trouble("conflict_on_delete", "network"),
    # Preemption
    Trouble("not_preemptible", "launch", closes="launch", domain="AD-2", shape=_P100, role=_PREEMPTIBLE),
    Trouble("preempted", "running", shape=_P100, role=_PREEMPTIBLE, takes_back=True),
    # Signing in
    Trouble("clock_skew", "sign_in", ends="sign_in", says=r"clock is 10 minutes behind", locks_out=True),
    Trouble("session_expires", "look", ends="look", says=_SESSION, role=_TOKEN, locks_out=True),
)

# The same interruption later: what was made until then stands, and the next run has to know it for its own.
INTERRUPTIONS = tuple(
    Trouble(
        "session_expires",
        "look",
        ends="running",
        says=_SESSION,
        role=_TOKEN,
        expires_at=operation,
        locks_out=True,
    )
    for operation in ("CreateVcn", "CreateSubnet", "LaunchInstance", "GetInstance")
)


@dataclass(frozen=True)
class Case:
    """Scenarios that are let loose together."""

    troubles: tuple[Trouble, ...]

    @property
    def name(self) -> str:
        """As a test's id."""
        return "+".join(one.name + (f"@{one.expires_at}" if one.expires_at else "") for one in self.troubles)

    @property
    def variables(self) -> dict[str, Any]:
        """The role's, under their own names."""
        role: dict[str, Any] = {"wait_for_ssh": self.ssh, "wait_s": 60}
        if len(self.troubles) > 1:
            for one in self.troubles:
                role |= one.paired
        for one in self.troubles:
            role |= one.role
        return {f"oci_instance_{name}": value for name, value in role.items()}

    @property
    def ssh(self) -> bool:
        """Whether the host key is to be pinned too."""
        return len(self.troubles) == 1 and self.troubles[0].ssh and not what_is_missing()

    @property
    def end(self) -> Trouble | None:
        """That which ends the run first; None where the instance is to be made."""
        ends = [one for one in self.troubles if one.ends]
        return min(ends, key=lambda one: MOMENTS.index(one.ends), default=None)

    @property
    def domains(self) -> tuple[str, ...]:
        """Where the instance may be, once it is made."""
        if self.troubles[0].closes:
            return ("AD-3",)
        return ("AD-2", "AD-3") if any(one.closes or one.any_domain for one in self.troubles) else ("AD-2",)

    @property
    def shapes(self) -> list[str]:
        """What the instance may be, once it is made."""
        return list(self.variables.get("oci_instance_shapes", [_A10]))


def can_meet(one: Trouble, other: Trouble) -> bool:
    """Whether neither keeps the other from striking."""
    if one.shape and other.shape and one.shape != other.shape:
        return False
    if one.sets and one.sets == other.sets:
        return False
    return _leaves_room(one, other) and _leaves_room(other, one)


def _leaves_room(one: Trouble, other: Trouble) -> bool:
    """Whether the run still comes to where the other strikes."""
    strikes = MOMENTS.index(other.first)
    if one.ends and strikes > MOMENTS.index(one.ends):
        return False
    # The plan looks at every domain; after it, a domain that is closed is not tried.
    closed = one.closes and one.closes != "plan" and strikes >= MOMENTS.index(one.closes)
    closed = closed or (one.closes == "plan" and strikes > MOMENTS.index("plan"))
    return not (closed and one.domain == other.domain)


def singles() -> list[Case]:
    """Every scenario alone."""
    return [Case((one,)) for one in TROUBLES]


def interruptions() -> list[Case]:
    """A session that ends at one moment or another."""
    return [Case((one,)) for one in INTERRUPTIONS]


def pairs() -> list[Case]:
    """Every two that can meet; the one that strikes in one domain only comes first, as the narrower rule.

    Where both answer the same launch, both orders are cases: the first trouble has it first.
    """
    narrow_first = [
        Case(tuple(sorted(two, key=lambda one: (not one.domain, bool(one.ends)))))
        for two in combinations(TROUBLES, 2)
        if can_meet(*two)
    ]
    [lost] = [one for one in TROUBLES if one.name == "launch_answer_lost"]
    refused = [one for one in TROUBLES if one.first == one.closes == "launch"]
    return [*(Case((lost, one)) for one in refused), *narrow_first]  # carried out, and then refused


def some_pairs(count: int, each: int) -> list[Case]:
    """At least so many pairs, always the same, in which every scenario that lets the instance be made is so often."""
    wanted = {one.name for one in TROUBLES if not one.ends}
    used = Counter[str]()

    def worth(case: Case) -> tuple[int, int]:
        names = [one.name for one in case.troubles]
        return sum(name in wanted and used[name] < each for name in names), -sum(used[name] for name in names)

    left, chosen = pairs(), list[Case]()
    while any(used[name] < each for name in wanted) or len(chosen) < count:
        best = max(left, key=worth)
        left.remove(best)
        chosen.append(best)
        used.update(one.name for one in best.troubles)
    return chosen


@dataclass
class Outcome:
    """What a case came to: `wrong` has a sentence for each thing that is not as it must be."""

    case: Case
    wrong: list[str] = field(default_factory=list)
    duplicates: int = 0
    leaks: int = 0
    tracebacks: int = 0
    unmet: list[str] = field(default_factory=list)
    said: str = ""  # all output, for people
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether all is as it must be."""
        return not (self.wrong or self.unmet or self.duplicates or self.leaks or self.tracebacks)

    def __str__(self) -> str:
        """For the report of a test."""
        counts = f"{self.duplicates} duplicates, {self.leaks} leaks, {self.tracebacks} tracebacks"
        unmet = f"; never met: {', '.join(self.unmet)}" if self.unmet else ""
        return f"{self.case.name}: {counts}{unmet}\n" + "\n".join(self.wrong) + f"\n{self.said}"


class Stage:
    """An emulated cloud and a controller in `folder`, on which one case is played after the other."""

    def __init__(self, cloud: EmulatedCloud, folder: Path) -> None:
        self.cloud = cloud
        self._folder = folder
        self._played = 0
        self._log_read = 0
        self._operations: list[str] = []
        home = folder / "home"
        home.mkdir()
        self._env = cloud.env | {
            "HOME": str(home),
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
            "ANSIBLE_LOCALHOST_WARNING": "False",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "False",
            "ANSIBLE_NOCOLOR": "1",
        }
        (folder / "play.yml").write_text(PLAYBOOK)
        config = oci.config.from_file(cloud.env["OCI_CLI_CONFIG_FILE"])
        # With retries: a fault that did not get its turn yet meets this client too.
        self._compute = oci.core.ComputeClient(config, retry_strategy=oci.retry.DEFAULT_RETRY_STRATEGY)
        session = self._compute.base_client.session
        session.trust_env = False  # the emulator is reached by these two, whatever this process is told
        session.proxies = {"https": cloud.env["HTTPS_PROXY"]}
        session.verify = cloud.env["REQUESTS_CA_BUNDLE"]

    def play(self, entry_point: str, variables: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        """The whole of ansible-playbook with an entry point of the role; its output is all in stdout."""
        wish = self._folder / "wish.json"
        given = {"entry_point": entry_point, "oci_instance_compartment_id": self.cloud.compartment}
        wish.write_text(json.dumps({**given, **variables}))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return subprocess.run(
            [program, str(self._folder / "play.yml"), "-e", f"@{wish}"],
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SLOW_S,
        )

    def perform(self, case: Case) -> Outcome:
        """Play a case from nothing back to nothing."""
        began = time.monotonic()
        self._played += 1
        result = _Performance(self, case, f"f{self._played}").outcome()
        with (self._folder / "emulator.log").open() as log:
            log.seek(self._log_read)
            said = log.read()
            self._log_read = log.tell()
        result.tracebacks += said.count("Traceback")
        result.said += said
        result.seconds = time.monotonic() - began
        return result

    def requests_before(self, operation: str) -> int:
        """How many requests a run in which nothing goes wrong sends before this one."""
        if not self._operations:
            self.cloud.scenarios()
            since = len(self.cloud.requests())
            for entry_point in ("main", "destroy"):
                self.play(entry_point, {"oci_instance_name": "model", "oci_instance_wait_for_ssh": False})
            asked = self.cloud.requests()[since:]
            self._operations = [row["operation"] for row in asked if row["service"] != "prices"]
        return self._operations.index(operation)

    def place(self, instance: str) -> tuple[str, str]:
        """Shape and availability domain of an instance, by its OCID."""
        row = self._compute.get_instance(instance).data
        return row.shape, row.availability_domain


class _Performance:
    """One case under way. The stack has a name of its own, so that nothing of another case is mistaken for it."""

    def __init__(self, stage: Stage, case: Case, stack: str) -> None:
        self._stage, self._cloud, self._case = stage, stage.cloud, case
        self._variables = case.variables | {"oci_instance_name": stack}
        self._stack = stack
        self._result = Outcome(case)

    def outcome(self) -> Outcome:
        """Present, and what the ledger says; absent, and what the ledger says."""
        lives = [self._stage.requests_before(one.expires_at) for one in self._case.troubles if one.expires_at]
        self._cloud.scenarios(*(one.name for one in self._case.troubles))
        for life in lives:
            self._cloud.post("settings", {"session_life": life})
        end = self._case.end
        if end:
            self._present_fails(end)
        else:
            self._present_makes()
        locked_out = any(one.locks_out for one in self._case.troubles)
        if locked_out:
            self._play("destroy", good=False, says=end.says if end else "")
        else:
            self._destroy()
        hits = self._cloud.hits()
        self._result.unmet = [one.name for one in self._case.troubles if not hits[one.name]]
        self._cloud.scenarios()
        if locked_out:
            self._play("main", good=True)
            self._standing(_PARTS)
            self._destroy()
        return self._result

    def _present_fails(self, end: Trouble) -> None:
        self._play("main", good=False, says=end.says)
        # What stood when one was locked out has to be left.
        self._standing(_PARTS if end.locks_out else frozenset(), all_of_it=not end.locks_out)

    def _present_makes(self) -> None:
        self._play("main", good=True)
        if any(one.takes_back for one in self._case.troubles):
            self._taken_back()
            return
        instance = self._standing(_PARTS)
        if instance:
            shape, domain = self._stage.place(instance)
            if shape not in self._case.shapes or not domain.endswith(self._case.domains):
                self._wrong(f"the instance is a {shape} in {domain}")

    def _taken_back(self) -> None:
        """Oracle ends the instance; the next run makes another, and nothing of the first is left."""
        end = time.monotonic() + _PREEMPTED_WITHIN_S
        while any(row["kind"] in ("instance", "vnic") for row in self._cloud.alive()):
            if time.monotonic() > end:
                self._wrong("the instance was not taken back")
                return
            time.sleep(0.1)
        self._standing(_PARTS - {"instance", "boot_volume", "vnic"})
        launched = self._cloud.ledger()["launched"]
        self._play("main", good=True)
        if self._cloud.ledger()["launched"] == launched:
            self._wrong("no other instance was made for the one that was taken back")
        self._standing(_PARTS, all_of_it=False)

    def _destroy(self) -> None:
        self._play("destroy", good=True)
        self._standing(set())

    def _play(self, entry_point: str, good: bool, says: str = "") -> None:
        try:
            done = self._stage.play(entry_point, self._variables)
        except subprocess.TimeoutExpired as error:
            self._wrong(f"{entry_point} hangs")
            self._result.said += str(error.stdout or "")
            return
        self._result.said += done.stdout
        self._result.tracebacks += done.stdout.count("Traceback")
        if (done.returncode == 0) != good:
            self._wrong(f"{entry_point} ended with {done.returncode}")
        sentences = re.findall(r"^\[ERROR\]: Task failed: Module failed: (.*)$", done.stdout, re.M)
        if says and not any(re.search(says, sentence) for sentence in sentences):
            self._wrong(f"{entry_point} does not say '{says}', but {sentences}")

    def _standing(self, wanted: AbstractSet[str], all_of_it: bool = True) -> str:
        """Compare what stands with what is wanted, one of each kind; return the instance's OCID."""
        rows = self._cloud.alive()
        count = Counter(row["kind"] for row in rows)
        twice = sum(number - 1 for number in count.values())
        self._result.duplicates += twice + self._side_by_side()
        self._result.leaks += sum(number for kind, number in count.items() if kind not in wanted)
        if "instance" not in wanted and (hourly := sum(row["hourly"] for row in rows)):
            self._wrong(f"it bills USD {hourly} an hour")
        if all_of_it and set(count) != wanted:
            self._wrong(f"there is {dict(count)}, and wanted is {sorted(wanted)}")
        return next((row["id"] for row in rows if row["kind"] == "instance"), "")

    def _side_by_side(self) -> int:
        """How many instances of the stack were launched while another one was there."""
        rows = [row for row in self._cloud.ledger()["resources"] if row["kind"] == "instance"]
        mine = sorted((row for row in rows if row["name"] == self._stack), key=lambda row: str(row["created"]))
        return sum(
            earlier["ended"] is None or later["created"] < earlier["ended"]
            for earlier, later in combinations(mine, 2)
        )

    def _wrong(self, sentence: str) -> None:
        self._result.wrong.append(sentence)


@contextmanager
def one_stage(folder: Path) -> Iterator[Stage]:
    """A stage with a cloud, which ends with the context."""
    with emulated_cloud(folder, waiting=_WAITING_S) as cloud:
        yield Stage(cloud, folder)


@contextmanager
def on_stages(cases: Sequence[Case], folder: Path) -> Iterator[list[Future[Outcome]]]:
    """Play the cases, two at a time and each of the two in a cloud of its own; yield their outcomes to wait for."""
    with ExitStack() as stack:
        free: SimpleQueue[Stage] = SimpleQueue()
        for number in range(_AT_ONCE):
            place = folder / f"stage{number}"
            place.mkdir()
            free.put(stack.enter_context(one_stage(place)))

        def perform(case: Case) -> Outcome:
            stage = free.get()
            try:
                return stage.perform(case)
            finally:
                free.put(stage)

        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE))
        stack.callback(pool.shutdown, cancel_futures=True)  # what nobody waits for any more
        yield [pool.submit(perform, case) for case in cases]


def by_name(cases: Sequence[Case]) -> dict[str, Case]:
    """The cases by their names, which are unique."""
    named = {case.name: case for case in cases}
    assert len(named) == len(cases)
    return named

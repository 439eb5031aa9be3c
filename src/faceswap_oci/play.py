"""Plays a playbook through ansible-runner and turns its events into an outcome.

ansible-runner has habits that this module is built around: it keeps the inputs of a run and its
environment on disk, overrides a few settings of ansible.cfg, ends a play by SIGKILL, which the workers of
ansible-core survive, and answers "successful" when no host was touched. Each is dealt with where it bites.
"""

import json
import os
import shlex
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import ansible_runner

from faceswap_oci import environment
from faceswap_oci.screen import Screen, clock_text

OK, FAILED, USAGE, NOTHING_RUN, UNREACHABLE, BROKEN, TIMEOUT = 0, 1, 2, 3, 4, 5, 124
CONSENT_CODES = range(20, 33)  # what a task that failed for want of consent has in `consent_code`

SITE, DESTROY, REVOKE = "site.yml", "playbooks/destroy.yml", "playbooks/revoke.yml"
BY_HAND = "by_hand"  # the tag of what only a play without the wrapper needs
KEPT_RUNS = 20  # logs of older runs are removed
GRACE = 10.0  # seconds ansible-playbook gets to end its workers, before it is killed
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROGRESS_KEY = "faceswap_progress"
SAID_KEY = "faceswap_said"
RESULT_KEY = "faceswap_run_result"
_SAYS = ("ansible.builtin.debug", "debug")  # what a play says, people shall read
_PROVISIONS = ("faceswap.ops.oci_instance",)
_LABELS = ("[ERROR]: ", "ERROR! ")


class UsageError(Exception):
    """What the user asked for cannot be done; the message is the whole sentence."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Order:
    """What to play: `root` is the checkout; paths are absolute; no inventory means ansible.cfg's own.

    `playbook` is relative to `root`. `values` win over `files`. `timeout` is in seconds.
    """

    root: Path
    playbook: str = SITE
    inventory: Sequence[str] = ()
    files: Sequence[Path] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    check: bool = False
    timeout: float | None = None


@dataclass
class Phase:
    """One part of the run (a play that had hosts, or the set-up before it) and how long it took."""

    name: str
    seconds: float


@dataclass
class Failure:
    """Why the play ended on one host; `consent_code` is the exit code where it was for want of consent."""

    host: str
    play: str
    task: str
    message: str
    consent_code: int | None = None


@dataclass
class Outcome:
    """The result of a run, as `--json` prints it: None where the run did not come to it.

    `folder`, `video` and `report` are the paths that the play's result names; `certificate` is `own` or `test`,
    by what the video was signed with; `changed` counts changed tasks over all hosts; `seconds` is the whole time;
    `message` says why the run ended where no failure does.
    """

    status: str
    exit_code: int
    message: str | None = None
    job: str | None = None
    folder: str | None = None
    video: str | None = None
    report: str | None = None
    certificate: str | None = None
    changed: int = 0
    seconds: float = 0.0
    phases: list[Phase] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    log: str | None = None


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where runs keep their logs: in XDG_STATE_HOME (only an absolute path counts) or ~/.local/state."""
    given = environ.get("XDG_STATE_HOME", "")
    base = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return base / "faceswap-oci"


def play(order: Order, screen: Screen, variables: Mapping[str, str], state: Path) -> Outcome:
    """Play a playbook of `order.root` to its end, showing it on `screen`.

    `variables` is the whole environment of the play; `state` is made if need be (0700) and afterwards holds
    the log, never the inputs. Raises UsageError if `state` cannot be written.
    """
    with _run_folders(state) as (private, folder):
        log = folder / "log.txt"
        with log.open("w", encoding="utf-8", buffering=1) as log_stream:
            watch = _Watch(screen, log_stream, order)
            arguments = [word for path in order.files for word in ("-e", f"@{path}")]
            arguments += ["--check"] if order.check else []
            with environment.only(variables), _signals(watch.on_signal):
                runner = ansible_runner.run(
                    private_data_dir=str(private),
                    artifact_dir=str(folder.parent),
                    ident=folder.name,
                    rotate_artifacts=KEPT_RUNS,
                    project_dir=str(order.root),
                    playbook=order.playbook,
                    inventory=list(order.inventory),  # as a list it is passed on untouched
                    # Values travel through a file in the private folder: `ps` shows arguments to everyone.
                    extravars=dict(order.values),
                    cmdline=shlex.join(arguments),
                    tags=",".join(order.tags),
                    skip_tags=BY_HAND,
                    envvars={
                        "ANSIBLE_CONFIG": str(order.root / "ansible.cfg"),
                        "ANSIBLE_HOST_KEY_CHECKING": "True",  # the runner's own default is False
                        "ANSIBLE_NOCOLOR": "True",  # the log is read in an editor
                        "FACESWAP_OPS_PROGRESS": "json",  # progress as data instead of a terminal's line
                    },
                    fact_cache_type="memory",  # the runner's own default writes facts to disk
                    # A signal is noticed within a second; the log is ours, without the progress.
                    settings={"pexpect_timeout": 1, "suppress_output_file": True},
                    quiet=True,
                    event_handler=watch.on_event,
                    cancel_callback=watch.on_tick,
                )
            return watch.outcome(runner.status, str(log))


@contextmanager
def _run_folders(state: Path) -> Iterator[tuple[Path, Path]]:
    """Fresh folders (0700) for the inputs of one run and for what is kept of it, both of the same name.

    The inputs are removed in the end, and so are those of runs that were killed: the name has the process id.
    """
    inputs, kept = state / "inputs", state / "runs"
    try:
        for folder in (state, inputs, kept):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in inputs.glob("*-*-*"):
            if not _alive(int(left.name.split("-")[1])):
                shutil.rmtree(left, ignore_errors=True)
        prefix = f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-"
        private = Path(tempfile.mkdtemp(prefix=prefix, dir=inputs))
        (kept / private.name).mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(
            f"Cannot keep the run's log in {state} ({error.strerror}): "
            "name a folder that you can write with XDG_STATE_HOME."
        ) from error
    try:
        yield private, kept / private.name
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Take SIGINT, SIGTERM and SIGHUP for the time of the block, except what is ignored (nohup, `&`)."""
    taken = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    saved = {number: signal.signal(number, handler) for number in taken}
    try:
        yield
    finally:
        for number, previous in saved.items():
            signal.signal(number, previous)


class _Watch:
    """Follows one play's events, and ends it when it must end."""

    def __init__(self, screen: Screen, log: TextIO, order: Order) -> None:
        self._screen = screen
        self._log = log
        self._playbook = order.playbook
        self._deadline = None if order.timeout is None else time.monotonic() + order.timeout
        self._stop: tuple[str, int, str] | None = None  # status, exit code and sentence of an early end
        self._killed_at: float | None = None
        self._pid: int | None = None  # of ansible-playbook
        self._play: tuple[str, float] | None = None
        self._task: tuple[str, float] | None = None
        self._provisions = False  # whether an instance is being made
        self._progress: str | None = None  # the stage's latest line, not yet written for good
        self._items: dict[str, Mapping[str, Any]] = {}  # of this task's loop, the first that failed on a host
        self._failures: dict[str, Failure] = {}
        self._unreachable: dict[str, Failure] = {}
        self._stats: Mapping[str, Any] | None = None
        self._last_words = ""  # outside of tasks: the first error if there is one
        self._result: Mapping[str, Any] = {}
        self._phases: list[Phase] = []

    # --- called by ansible-runner -------------------------------------------------------------------------

    def on_event(self, event: dict[str, Any]) -> bool:
        """Take one event. True keeps its file: progress has none, or a night would leave thousands.

        An exception here would escape from ansible-runner and leave ansible-playbook alive without a master,
        so it is kept, and the play ended in order.
        """
        try:
            return self._take(event)
        except Exception as error:
            self._broken(error)
            return True

    def on_tick(self) -> bool:
        """Called about once a second; True makes ansible-runner kill the play.

        The workers of ansible-core are sessions of their own, which the runner's SIGKILL does not reach. So
        ansible-playbook is interrupted first, which makes it end its workers, and killed only if it stays.
        """
        now = time.monotonic()
        if self._deadline is not None and now > self._deadline:
            self._end("timeout", TIMEOUT, "The time given with --timeout is over.")
        if self._stop is None:
            try:
                self._show_task()
            except Exception as error:
                self._broken(error)
            return False
        if self._pid is None:
            return True
        if self._killed_at is None:
            self._killed_at = now
            os.kill(self._pid, signal.SIGINT)
        return now - self._killed_at > GRACE

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Only note the signal: on_tick acts on it."""
        name = signal.Signals(number).name
        self._end("cancelled", 128 + number, f"Stopped by {name}.")

    # --- one event ----------------------------------------------------------------------------------------

    def _take(self, event: dict[str, Any]) -> bool:
        text = event.get("stdout", "").replace("\r\n", "\n").strip("\r\n")
        if PROGRESS_KEY in text and (progress := _progress(text)):
            self._progress = None if self._screen.living(f"  {progress}") else progress
            return False
        if SAID_KEY in text and (said := _said(text)):
            self._progress = None
            self._screen.line(f"  {said}")
            self._log.write(said + "\n")
            return False
        kind = event["event"]
        if kind.startswith(("playbook_on_", "runner_on_")) and kind != "runner_on_start":
            self._settle()
        if text:
            self._log.write(text + "\n")
            if kind in ("error", "verbose") and not self._last_words.startswith(_LABELS):
                self._last_words = text.splitlines()[0]
        data = event.get("event_data", {})
        if kind == "playbook_on_start":
            self._pid = event["pid"]
        elif kind == "playbook_on_play_start":
            self._close_phase()
            self._play = (data["name"], time.monotonic())
        elif kind == "playbook_on_task_start":
            self._open_phase()
            self._task = (data["task"], time.monotonic())
            self._provisions = data["task_action"] in _PROVISIONS
            self._items = {}
            self._show_task()
        if kind in ("runner_on_ok", "runner_on_failed"):
            for warning in (data.get("res") or {}).get("warnings") or []:
                self._screen.line(f"  Warning: {warning}")
        if kind == "runner_on_ok":
            if data["task_action"] in _SAYS and isinstance(said := (data.get("res") or {}).get("msg"), str):
                for line in said.splitlines():
                    self._screen.line(f"  {line.rstrip()}")
            self._result = _result(data.get("res")) or self._result
        elif kind == "runner_item_on_failed":
            self._items.setdefault(data["host"], data["res"])
        elif kind == "runner_on_failed" and not data.get("ignore_errors"):
            self._failures[data["host"]] = _failure(data, self._items.get(data["host"]))
        elif kind == "runner_on_unreachable":
            self._unreachable[data["host"]] = _failure(data)
        elif kind == "playbook_on_stats":
            self._close_phase()
            self._stats = data
        return True

    def _open_phase(self) -> None:
        """A play is a phase from its first task on: one without hosts has none, and is passed over."""
        if self._play and self._task is None:
            self._screen.line(self._play[0])

    def _close_phase(self) -> None:
        if self._play and self._task:
            name, started = self._play
            self._phases.append(Phase(name, round(time.monotonic() - started, 1)))
        self._play = self._task = None

    def _settle(self) -> None:
        """The last progress of a stage stays on the screen, and stands in the log."""
        if self._progress:
            self._screen.line(f"  {self._progress}")
            self._log.write(self._progress + "\n")
            self._progress = None

    def _show_task(self) -> None:
        if self._task and not self._progress:
            name, started = self._task
            self._screen.living(f"  {name}  {clock_text(time.monotonic() - started)}")

    # --- the end ------------------------------------------------------------------------------------------

    def _end(self, status: str, exit_code: int, message: str) -> None:
        left = _STANDS if self._playbook == DESTROY else _MAY_BILL if self._provisions else _GOES_ON
        self._stop = self._stop or (status, exit_code, message + left)

    def _broken(self, error: Exception) -> None:
        """The screen is gone, or there is a fault in this module."""
        self._end("error", BROKEN, f"The wrapper itself failed ({error!r}), so the play was ended.")
        with suppress(OSError):
            self._log.write(traceback.format_exc())

    def outcome(self, status: str, log: str) -> Outcome:
        """What came of it: a "successful" run of ansible-runner that touched no host is not ok."""
        self._settle()
        self._close_phase()
        self._screen.clear()
        stats = self._stats or {}
        made = Outcome("ok", OK, phases=self._phases, log=log)
        made.job, made.folder = self._result.get("job"), self._result.get("folder")
        made.video, made.report = self._result.get("video"), self._result.get("report")
        made.certificate = self._result.get("certificate")
        made.changed = sum(stats.get("changed", {}).values())
        failed = [failure for host, failure in self._failures.items() if host in stats.get("failures", {})]
        lost = [failure for host, failure in self._unreachable.items() if host in stats.get("dark", {})]
        if status == "successful" and stats.get("processed"):
            return made
        if status == "successful":
            made.status, made.exit_code = "nothing run", NOTHING_RUN
            made.message = "Nothing was run: no host of this inventory is one for what was asked (-i names another)."
        elif self._stop:
            made.status, made.exit_code, made.message = self._stop
        elif failed:
            made.status, made.failures = "failed", failed + lost
            made.exit_code = next((bad.consent_code for bad in failed if bad.consent_code), FAILED)
        elif lost:
            made.status, made.exit_code, made.failures = "unreachable", UNREACHABLE, lost
        else:
            made.status, made.exit_code = "error", BROKEN
            made.message = f"Ansible could not play {self._playbook}: {_sentence(self._last_words)}"
        return made


_GOES_ON = (
    " A job that had begun on the host goes on there: the same command again shows it,"
    " `faceswap-oci stop` (with the same -i and -e) stops it, keeping what was made."
)
_MAY_BILL = (
    " An instance may have been made, and then it bills: the same command again goes on with it,"
    " `faceswap-oci destroy` (with the same -i and -e) removes it."
)
_STANDS = " What was not removed yet is still there and may cost money: the same command again goes on."


def _progress(text: str) -> str | None:
    """The ready line in a progress update, or None where `text` only mentions the key (a task's output)."""
    try:
        update = json.loads(text)
        line = update[PROGRESS_KEY]["text"]
    except (ValueError, TypeError, KeyError):
        return None
    return line if isinstance(line, str) else None


def _said(text: str) -> str | None:
    """A line of a task that is under way, or None where `text` only mentions the key."""
    try:
        line = json.loads(text)[SAID_KEY]
    except (ValueError, TypeError, KeyError):
        return None
    return line if isinstance(line, str) else None


def _result(res: object) -> Mapping[str, Any] | None:
    """The job's result in a task's, where a module returned it or set_fact set it."""
    if not isinstance(res, Mapping):
        return None
    facts = res.get("ansible_facts")
    found = res.get(RESULT_KEY) or (facts.get(RESULT_KEY) if isinstance(facts, Mapping) else None)
    return found if isinstance(found, Mapping) else None


def _failure(data: Mapping[str, Any], item: Mapping[str, Any] | None = None) -> Failure:
    res = item or data.get("res") or {}
    code = res.get("consent_code")
    known = code if code in CONSENT_CODES else None
    return Failure(data["host"], data["play"], data["task"], _message(res), known)


def _message(res: Mapping[str, Any]) -> str:
    """The sentence in a failed result, with the last words of a command."""
    said = _sentence(str(res.get("msg") or res.get("censored") or "the task gave no message"))
    words = [
        line
        for key in ("stderr", "module_stderr", "stdout", "module_stdout")
        for line in str(res.get(key) or "").splitlines()[::-1]
        if line.strip()
    ]
    return f"{said.rstrip('.')}: {words[0].strip()}" if res.get("rc") and words else said


def _sentence(text: str) -> str:
    """`text` as one line, without Ansible's label."""
    for label in _LABELS:
        text = text.removeprefix(label)
    return " ".join(text.split())

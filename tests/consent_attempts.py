"""Attempts to get a swap out without consent, each by somebody within the attacker's means (docs/consent.md).

They are made on a real host with an honest, finished job beside them: what is refused here would be done for an
honest user. Each says by which code it must be refused, so that one that fails for another reason is seen too.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from testhosts.hosts import LOGIN, TestHosts
from trust import Trust

ROOT = Path(__file__).parent.parent
PROGRAMS = Path(sys.executable).parent
HOST = "one"
DIR = "/srv/faceswap-oci"
JOBS = f"{DIR}/jobs"
ENGINE = "/opt/faceswap-oci/engine/engine.json"
HOME = f"/home/{LOGIN}"
FRAMES = 30
SIGN = "Release | Sign it, and let it out"


@dataclass(frozen=True)
class Attempt:
    """One way to try it: what it is, the code that refuses it, and how it is made; it returns what was said."""

    name: str
    code: int | str
    make: Callable[["Studio"], str]


ATTEMPTS: list[Attempt] = []


def attempt(name: str, code: int | str) -> Callable[[Callable[["Studio"], str]], Callable[["Studio"], str]]:
    """Put a function into the table; `code` is that of the refusal, or words of one that has none."""

    def put(make: Callable[["Studio"], str]) -> Callable[["Studio"], str]:
        ATTEMPTS.append(Attempt(name, code, make))
        return make

    return put


class Studio:
    """A host, honest people with their records and a finished job, and who tries to get round them."""

    def __init__(self, hosts: TestHosts, trust: Trust, folder: Path) -> None:
        self.hosts, self.trust, self.folder = hosts, trust, folder
        self.number = 0
        self.a = cut(ROOT / "demo" / "clipA.mp4", folder / "a.mp4")
        self.b = cut(ROOT / "demo" / "clipB.mp4", folder / "b.mp4")
        self.other = cut(ROOT / "demo" / "clipB.mp4", folder / "other.mp4", start=60)
        self.record_a = trust.record(self.a, "a")
        self.record_b = trust.record(self.b, "b")

    @property
    def job(self) -> str:
        """The attempt's own job."""
        return f"attempt-{self.number}"

    @property
    def place(self) -> str:
        """The attempt's job folder on the host."""
        return f"{JOBS}/{self.job}"

    @property
    def out(self) -> Path:
        """Where results of the attempt's job would come."""
        return self.folder / "out" / self.job

    @property
    def quarantine(self) -> Path:
        """Where results of the attempt's job would come first."""
        return self.out.with_name(".quarantine") / self.job

    def values(self, **changed: Any) -> dict[str, Any]:
        """The honest job's variables, and what is changed."""
        return {
            "faceswap_install_engine": "builtin",
            "faceswap_run_engine": "builtin",
            "faceswap_run_trainer": "lightweight",
            "faceswap_run_face_size": 256,
            "faceswap_run_job": self.job,
            "faceswap_run_out": str(self.folder / "out"),
            "faceswap_run_source_a": str(self.a),
            "faceswap_run_source_b": str(self.b),
            "faceswap_run_consent_a": str(self.record_a),
            "faceswap_run_consent_b": str(self.record_b),
            "faceswap_run_iterations": 4,
            "faceswap_run_batch_size": 4,
            **changed,
        }

    def play(self, *words: str, playbook: str = "playbooks/faceswap_run.yml", env: Any = None, **values: Any) -> str:
        """Play as the attacker; what was said."""
        self.begin()
        with tempfile.TemporaryDirectory() as sockets:
            command = [
                *self.trust.prefix,
                str(PROGRAMS / "ansible-playbook"),
                playbook,
                "-i",
                str(self.hosts.inventory),
            ]
            command += ["-e", json.dumps(self.values(**values)), *words]
            environment = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets}
            done = subprocess.run(
                command,
                cwd=ROOT,
                env={**os.environ, **environment, **(env or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=900,
            )
        return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"

    def play_role(self, part: str, start_at: str, **values: Any) -> str:
        """Play a part of the role from a playbook of one's own, from a task on."""
        playbook = self.folder / "mine.yml"
        role = {"name": "faceswap_run", "tasks_from": part}
        playbook.write_text(
            json.dumps(
                [{"hosts": "faceswap", "gather_facts": False, "tasks": [{"ansible.builtin.import_role": role}]}]
            )
        )
        # What the tasks before it would have found out is given, too.
        values = {"__faceswap_run_host": {"systemd": True, "user": LOGIN}, **values}
        return self.play("--start-at-task", f"faceswap_run : {start_at}", playbook=str(playbook), **values)

    def login(self, command: str, timeout: float = 120) -> str:
        """What a command says on the host, as the login."""
        done = self.hosts.run(HOST, command, timeout)
        return done.stdout + done.stderr

    def as_jobs_user(self, command: str) -> str:
        """The same as the user of the jobs, who may write in the job folders."""
        return self.login(f"sudo runuser -u faceswap -- sh -c {shlex.quote(command)}")

    def send(self, source: Path, target: str) -> None:
        """Lay a file on the host, for its login."""
        with source.open("rb") as stream:
            ssh = ["ssh", *self.hosts.ssh_options(HOST), "-o", "BatchMode=yes", "-i", str(self.hosts.key)]
            subprocess.run(
                [*ssh, f"{LOGIN}@{self.hosts.target(HOST)}", f"mkdir -p {Path(target).parent} && cat > {target}"],
                stdin=stream,
                check=True,
            )

    def finished_job(self, *gone: str) -> None:
        """Give the attempt a copy of the honest job, without what the stages in question made."""
        removed = " ".join(shlex.quote(f"{self.place}/{name}") for name in gone)
        self.sudo(f"cp -a {JOBS}/honest {self.place}" + (f" && rm -rf {removed}" if removed else ""))

    def sudo(self, command: str) -> str:
        """What root, or the test, has to do on the host before the attacker comes."""
        done = self.hosts.run(HOST, f"sudo sh -c {shlex.quote(command)}", 120)
        assert done.returncode == 0, done
        return done.stdout

    def supervisor(self, job: str, stage: str, spec: dict[str, Any], prefix: str = "") -> str:
        """Call the host's own supervisor directly, as the login."""
        self.begin()
        spec = {"engine_file": ENGINE, "need_mb": 0, **spec}
        words = f"{prefix} /usr/bin/python3 -I {DIR}/bin/supervisor.py start {job} {stage}"
        said = self.login(f"printf %s {shlex.quote(json.dumps(spec))} | {words}")
        for _ in range(60):
            status = self.login(f"/usr/bin/python3 -I {DIR}/bin/supervisor.py status {job} {stage}")
            if '"alive": true' not in status:
                return said + status
            time.sleep(0.5)
        return said + "still at work"

    def begin(self) -> None:
        """Mark the time from which on what appears was got out: all is laid ready."""
        self.sudo("sleep 0.02 && touch /run/attempt && sleep 0.02")

    def job_of_ones_own(self) -> None:
        """Give the login a copy of the honest job, as far as it was trained."""
        self.sudo(
            f"mkdir -p {HOME}/mine && cp -a {JOBS}/honest {HOME}/mine/job && cd {HOME}/mine/job && "
            f"rm -rf quarantine result stages/convert stages/release && chown -R {LOGIN} {HOME}/mine"
        )

    def engine_python(self) -> str:
        """The interpreter in which the programs of stages run."""
        return str(json.loads(self.sudo(f"cat {ENGINE}"))["python"])

    def loot(self) -> list[str]:
        """Swapped frames and videos that the attempt got: here, in its job, and wherever it may write."""
        places = (self.out, self.quarantine)
        mine = self.other.read_bytes()  # what the attacker brought himself is no swap
        films = [path for place in places if place.exists() for path in place.rglob("*.mp4*") if path.is_file()]
        here = [str(path) for path in films if path.parent == self.out or path.read_bytes() != mine]
        found = self.sudo(
            f"find {self.place}/quarantine {self.place}/result {HOME} /tmp /var/tmp -newer /run/attempt "
            "\\( -name '*.png' -o -name '*.mp4' \\) ! -path '*/input/*' ! -path '*/given/*' ! -path '*/faces_*' "
            "2>/dev/null || true"
        )
        return here + found.splitlines()

    def try_it(self, one: Attempt) -> tuple[list[str], str]:
        """Make one attempt; return what it got out, and what was said."""
        self.number += 1
        said = one.make(self)
        loot = self.loot()
        self.sudo(f"rm -rf {self.place} {HOME}/mine")
        for place in (self.out, self.quarantine):
            shutil.rmtree(place, ignore_errors=True)
        return loot, said


def refused(said: str, code: int | str) -> bool:
    """Tell whether what was said is the refusal by this code, or in these words."""
    if isinstance(code, str):
        return code in said
    return re.search(rf'\b(?:consent_)?code"?: {code}\b', said) is not None


def cut(clip: Path, target: Path, start: int = 0) -> Path:
    """Some frames of a clip as a video of its own."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for number, frame in enumerate(source.decode(video=0)):
            if start <= number < start + FRAMES:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), "rgb24")))
        out.mux(stream.encode(None))
    return target


# -- records ------------------------------------------------------------------------------------------------------


@attempt("no records", 20)
def _no_records(at: Studio) -> str:
    return at.play(faceswap_run_consent_a="", faceswap_run_consent_b="")


@attempt("a record without a signature", 20)
def _unsigned(at: Studio) -> str:
    return at.play(faceswap_run_consent_b=str(at.trust.record(at.b, "b", sign=False)))


@attempt("only whose head it is has agreed", 20)
def _only_a(at: Studio) -> str:
    return at.play(faceswap_run_consent_b="")


@attempt("an expired record", 22)
def _expired(at: Studio) -> str:
    return at.play(faceswap_run_consent_b=str(at.trust.record(at.b, "b", valid=("2020-01-01", "2021-01-01"))))


@attempt("a record that is not valid yet", 23)
def _early(at: Studio) -> str:
    return at.play(faceswap_run_consent_b=str(at.trust.record(at.b, "b", valid=("2090-01-01", "2091-01-01"))))


@attempt("a revoked record", 24)
def _revoked(at: Studio) -> str:
    record = at.trust.record(at.b, "b")
    at.trust.revoke(record)
    return at.play(faceswap_run_consent_b=str(record))


@attempt("an older list of revocations put back on the controller, when the host knows the newer", 24)
def _older_list(at: Studio) -> str:
    record = at.trust.record(at.b, "b")
    at.trust.revoke(record)
    at.play("--tags", "extract")  # honest people's, by which the host hears of it
    with at.trust.older_revocations():
        return at.play(faceswap_run_consent_b=str(record))


@attempt("a record that was altered after it was signed", 25)
def _altered(at: Studio) -> str:
    record = at.trust.record(at.b, "b", valid=("2020-01-01", "2021-01-01"))
    record.write_text(record.read_text().replace("2021-01-01", "2091-01-01"))
    return at.play(faceswap_run_consent_b=str(record))


@attempt("an old signature beside a new record", 25)
def _old_signature(at: Studio) -> str:
    new = at.trust.record(at.other, "b", sign=False)
    shutil.copy(f"{at.record_b}.sig", f"{new}.sig")
    return at.play(faceswap_run_consent_b=str(new), faceswap_run_source_b=str(at.other))


@attempt("a record signed by a stranger", 26)
def _stranger(at: Studio) -> str:
    return at.play(faceswap_run_consent_b=str(at.trust.record(at.b, "b", key=at.trust.stranger)))


@attempt("a stranger's own list of trusted signers, by HOME and XDG_CONFIG_HOME", 26)
def _own_list(at: Studio) -> str:
    home = at.folder / "stranger"
    for folder in (home / ".config" / "faceswap-oci", home / "faceswap-oci"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "allowed_signers").write_text(at.trust.allowed(at.trust.stranger))
    record = at.trust.record(at.b, "b", key=at.trust.stranger)
    env = {"HOME": str(home), "XDG_CONFIG_HOME": str(home)}
    return at.play(faceswap_run_consent_b=str(record), env=env)


@attempt("the demo's record for another clip", 27)
def _demo_record(at: Studio) -> str:
    return at.play(faceswap_run_consent_b=str(ROOT / "demo" / "consent" / "b.yml"))


@attempt("a head's record for a face", 28)
def _other_use(at: Studio) -> str:
    return at.play(faceswap_run_consent_b=str(at.trust.record(at.b, "a")))


@attempt("one person's record for both sides", 28)
def _both_sides(at: Studio) -> str:
    both = at.trust.record(at.a, "ab", more=[at.b])
    return at.play(faceswap_run_consent_a=str(both), faceswap_run_consent_b=str(both))


# -- clips, job files, variables ----------------------------------------------------------------------------------


@attempt("another clip under the consented one's record", 27)
def _other_clip(at: Studio) -> str:
    return at.play(faceswap_run_source_b=str(at.other))


@attempt("a job file edited after an honest run of it", 27)
def _edited_job(at: Studio) -> str:
    at.finished_job("quarantine", "result")
    job = at.folder / "job.yml"
    job.write_text(json.dumps({"faceswap_run_source_b": str(at.other)}))
    return at.play("--skip-tags", "plan", "-e", f"@{job}")


@attempt("a link to another clip under the consented one's name", 27)
def _link(at: Studio) -> str:
    link = at.folder / "b-link.mp4"
    link.unlink(missing_ok=True)
    link.symlink_to(at.other)
    return at.play(faceswap_run_source_b=str(link))


@attempt("--skip-tags plan", 26)
def _skip_plan(at: Studio) -> str:
    record = at.trust.record(at.b, "b", key=at.trust.stranger)
    return at.play("--skip-tags", "plan", playbook="site.yml", faceswap_run_consent_b=str(record))


@attempt("--start-at-task behind all that looks at records", 20)
def _start_at_extract(at: Studio) -> str:
    record = at.trust.record(at.b, "b", key=at.trust.stranger)
    return at.play_role("extract", "Extract | Bring the sources", faceswap_run_consent_b=str(record))


@attempt("--start-at-task training, in a job without records", 20)
def _start_at_train(at: Studio) -> str:
    at.finished_job("consent", "model", "quarantine", "result", "stages/train", "stages/convert", "stages/release")
    return at.play_role("train", "Train | Train the model")


@attempt("-e that says that there are no objections", 27)
def _no_objections(at: Studio) -> str:
    media = {"results": [{"stat": {"exists": True, "checksum": side}} for side in "ab"]}
    return at.play(
        faceswap_run_source_b=str(at.other),
        __faceswap_run_objections=[],
        __faceswap_run_media=media,
        __faceswap_run_consents={"a": {}, "b": {}},
    )


@attempt("-e that says that the host was prepared", 26)
def _prepared(at: Studio) -> str:
    record = at.trust.record(at.b, "b", key=at.trust.stranger)
    return at.play("--skip-tags", "plan", faceswap_run_consent_b=str(record), __faceswap_run_prepared=True)


@attempt("-e that names another program for the supervisor", 30)
def _other_supervisor(at: Studio) -> str:
    at.finished_job("quarantine", "result", "stages/convert", "stages/release")
    at.login(f"mkdir -p {HOME}/mine && cp -r {DIR}/bin {HOME}/mine && echo '# mine' >> {HOME}/mine/bin/gate.py")
    return at.play("--tags", "convert", __faceswap_run_supervisor=f"{HOME}/mine/bin/units.py")


@attempt("-e that moves all to a folder with programs of one's own", 30)
def _other_dir(at: Studio) -> str:
    at.sudo(
        f"mkdir -p {HOME}/mine/jobs && cp -a {JOBS}/honest {HOME}/mine/jobs/{at.job} && cp -r {DIR}/bin {HOME}/mine"
    )
    at.sudo(f"rm -rf {HOME}/mine/jobs/{at.job}/quarantine && echo '# mine' >> {HOME}/mine/bin/gate.py")
    return at.play_role("convert", "Convert | Swap the face in every frame", faceswap_run_dir=f"{HOME}/mine")


@attempt("the task of a stage in a playbook of one's own, with another supervisor", 30)
def _own_playbook(at: Studio) -> str:
    at.finished_job("quarantine", "result", "stages/convert", "stages/release")
    at.login(f"mkdir -p {HOME}/mine && cp -r {DIR}/bin {HOME}/mine && echo '# mine' >> {HOME}/mine/bin/gate.py")
    spec = json.loads(at.sudo(f"cat {JOBS}/honest/stages/convert/spec.json"))
    known = ("engine_file", "stage", "script", "arguments", "neutral_arguments", "inputs", "outputs", "need_mb")
    task = {
        "supervisor": f"{HOME}/mine/bin/units.py",
        "job_dir": at.place,
        **{k: spec[k] for k in known if k in spec},
    }
    playbook = at.folder / "mine.yml"
    tasks = [{"name": "Swap", "become": True, "faceswap.ops.stage": task}]
    playbook.write_text(json.dumps([{"hosts": "faceswap", "gather_facts": False, "tasks": tasks}]))
    return at.play(playbook=str(playbook))


@attempt("an engine of one's own", 30)
def _other_engine(at: Studio) -> str:
    at.login(f"mkdir -p {HOME}/mine && cp {ENGINE} {HOME}/mine/engine.json && chmod 755 {HOME} {HOME}/mine")
    return at.play(faceswap_run_engine_file=f"{HOME}/mine/engine.json")


@attempt("an engine of one's own, brought as a source to another folder of jobs", 30)
def _other_engine_brought(at: Studio) -> str:
    images = at.folder / "images"
    images.mkdir(exist_ok=True)
    (images / "evil.py").write_text("print('mine')")
    brought = f"/srv/other/jobs/{at.job}/input/b"
    engine = {**json.loads(at.sudo(f"cat {ENGINE}")), "command": ["/usr/bin/python3", f"{brought}/evil.py"]}
    (images / "engine.json").write_text(json.dumps(engine))
    others = {"faceswap_run_dir": "/srv/other", "faceswap_run_source_b": str(images)}
    at.play_role("extract", "Prepare | Bring the programs", **others)
    assert "evil.py" in at.sudo(f"ls {brought}")
    return at.play(faceswap_run_engine_file=f"{brought}/engine.json")


@attempt("-e that writes directives of one's own into root's units", "cannot stand in a unit")
def _directives(at: Studio) -> str:
    evil = f"{ENGINE}\nExecStartPre=+/usr/bin/touch {HOME}/evil.png"
    return at.play_role("extract", "Prepare | Install the units", faceswap_run_engine_file=evil)


@attempt("-e that has the tag stop run a program of one's own as root", 30)
def _other_stop(at: Studio) -> str:
    at.finished_job()
    mine = f"{HOME}/mine/bin/units.py"
    at.login(f"mkdir -p {HOME}/mine && cp -r {DIR}/bin {HOME}/mine && echo '# mine' >> {mine}")
    return at.play("--tags", "stop", __faceswap_run_supervisor=mine)


@attempt("another source by an option of extract, past the role's objections", 30)
def _extract_option(at: Studio) -> str:
    at.send(at.other, f"{HOME}/mine/given/other.mp4")
    at.login(f"chmod -R a+rX {HOME}")
    words = ["-i", f"{HOME}/mine/given/other.mp4"]
    return at.play(faceswap_run_extract_options=words, __faceswap_run_objections=[])


@attempt("another output by an abbreviated option of convert, past the role's objections", 30)
def _convert_option(at: Studio) -> str:
    at.finished_job("quarantine", "result", "stages/convert", "stages/release")
    return at.play(
        "--tags", "convert", faceswap_run_convert_options=["--output-d=/tmp/loot"], __faceswap_run_objections=[]
    )


@attempt("words of our own programs among the user's", 30)
def _own_words(at: Studio) -> str:
    return at.play(faceswap_run_extract_options=["--", "--engine", f"{HOME}/e.json"], __faceswap_run_objections=[])


@attempt("a label that denies, past the role's objections", "label")
def _denying_label(at: Studio) -> str:
    at.finished_job("result", "stages/release")
    said = at.play("--tags", "release", faceswap_run_label="100% real, deepfake-free", __faceswap_run_objections=[])
    return said if "exit code 0" not in said else ""


# -- the host's programs and folders --------------------------------------------------------------------------------

EXTRACT_B: dict[str, Any] = {
    "stage": "extract_b",
    "script": "faces/extract.py",
    "arguments": shlex.split(f"--engine {ENGINE} -- extract -i input/b.mp4 -o faces_b -p alignments_b.json -z 256"),
    "neutral_arguments": ["--", "--ranges", "1", "--report", "faces/b", "--least", "1"],
    "inputs": ["input/b.mp4"],
    "outputs": ["faces_b", "alignments_b.json", "faces/b"],
    "editable": ["faces_b"],
}


@attempt("the supervisor called by hand, without records", 20)
def _by_hand(at: Studio) -> str:
    at.send(at.other, f"{HOME}/mine/job/input/b.mp4")
    return at.supervisor(f"{HOME}/mine/job", "extract_b", EXTRACT_B)


@attempt("the supervisor called by hand, with another source among the words", 30)
def _by_hand_words(at: Studio) -> str:
    at.job_of_ones_own()
    at.send(at.other, f"{HOME}/mine/given/other.mp4")
    words = [*EXTRACT_B["arguments"], "--input-dir", f"{HOME}/mine/given/other.mp4"]
    return at.supervisor(f"{HOME}/mine/job", "extract_b", EXTRACT_B | {"arguments": words})


@attempt("the supervisor called by hand, with a stage of one's own", 30)
def _by_hand_stage(at: Studio) -> str:
    at.job_of_ones_own()
    return at.supervisor(f"{HOME}/mine/job", "anything", EXTRACT_B | {"stage": "anything"})


@attempt("the supervisor called by hand, with a script of one's own", 30)
def _by_hand_script(at: Studio) -> str:
    at.job_of_ones_own()
    at.login(f'echo \'open("swap.png", "w")\' > {HOME}/mine/evil.py')
    return at.supervisor(f"{HOME}/mine/job", "extract_b", EXTRACT_B | {"script": f"{HOME}/mine/evil.py"})


@attempt("the supervisor called by hand, with an ssh-keygen of one's own in PATH", 26)
def _by_hand_path(at: Studio) -> str:
    at.job_of_ones_own()
    record = at.trust.record(at.other, "b", key=at.trust.stranger)
    for name in ("b.yml", "b.yml.sig"):
        at.send(Path(str(record) + name.removeprefix("b.yml")), f"{HOME}/mine/job/consent/{name}")
    at.send(at.trust.reference(record), f"{HOME}/mine/job/consent/b.reference.png")
    at.send(at.other, f"{HOME}/mine/job/input/b.mp4")
    fake = f"{HOME}/mine/bin/ssh-keygen"
    at.login(f"mkdir {HOME}/mine/bin && printf '#!/bin/sh\\nexit 0\\n' > {fake} && chmod +x {fake}")
    return at.supervisor(f"{HOME}/mine/job", "extract_b", EXTRACT_B, prefix=f"PATH={HOME}/mine/bin:$PATH")


@attempt("a link on the host in place of the consented clip", 30)
def _host_link(at: Studio) -> str:
    at.job_of_ones_own()
    at.login(f"cd {HOME}/mine/job && mv input/b.mp4 kept.mp4 && ln -s ../kept.mp4 input/b.mp4 && rm -rf faces_b")
    return at.supervisor(f"{HOME}/mine/job", "extract_b", EXTRACT_B)


@attempt("a clip that is swapped while the engine reads it, and swapped back", 30)
def _race(at: Studio) -> str:
    at.job_of_ones_own()
    at.send(at.other, f"{HOME}/mine/given/other.mp4")
    racer = (
        f"cd {HOME}/mine/job; rm -rf faces_b; for i in $(seq 3000); do "
        "if pgrep -f '[/]faceswap.py extract' >/dev/null; then "
        "mv input/b.mp4 kept.mp4; cp ../given/other.mp4 input/b.mp4; sleep 4; mv kept.mp4 input/b.mp4; break; fi; "
        "sleep 0.01; done"
    )
    at.login(f"nohup sh -c {shlex.quote(racer)} >/dev/null 2>&1 &")
    return at.supervisor(f"{HOME}/mine/job", "extract_b", EXTRACT_B)


@attempt("a program of a stage called by hand, without the supervisor", 27)
def _script_by_hand(at: Studio) -> str:
    at.job_of_ones_own()
    at.send(at.other, f"{HOME}/mine/job/input/b.mp4")
    python = at.login(f'python3 -c \'import json; print(json.load(open("{ENGINE}"))["python"])\'').strip()
    words = shlex.join(EXTRACT_B["arguments"])
    at.begin()
    by_hand = f"{python} {DIR}/bin/faces/extract.py {words}"
    return at.login(f"cd {HOME}/mine/job && rm -rf faces_b && {by_hand}; echo '\"code\":' $?")


@attempt("records of another on the host, between preflight and training", 27)
def _records_replaced(at: Studio) -> str:
    at.finished_job("model", "stages/train")
    record = at.trust.record(at.other, "b")
    for end in ("", ".sig"):
        at.send(Path(f"{record}{end}"), f"{HOME}/mine/b.yml{end}")
    at.send(at.trust.reference(record), f"{HOME}/mine/b.reference.png")
    at.login(f"chmod -R a+rX {HOME}")
    at.as_jobs_user(
        f"cd {at.place}/consent && cp {HOME}/mine/b.yml {HOME}/mine/b.yml.sig {HOME}/mine/b.reference.png ."
    )
    return at.play_role("train", "Train | Train the model")


@attempt("faces of somebody else among the consented ones", 30)
def _more_faces(at: Studio) -> str:
    at.finished_job("model", "stages/train", "quarantine", "result")
    at.as_jobs_user(f"cd {at.place} && cp $(ls faces_a/*.png | head -1) faces_b/zz.png")
    return at.play("--tags", "train")


@attempt("a model from elsewhere", 30)
def _other_model(at: Studio) -> str:
    at.finished_job("quarantine", "result", "stages/convert", "stages/release")
    at.as_jobs_user(f"cd {at.place} && for f in model/*; do printf x >> $f; done")
    return at.play("--tags", "convert")


@attempt("frames of another swap in quarantine", 30)
def _other_frames(at: Studio) -> str:
    at.finished_job("result", "stages/release")
    at.as_jobs_user(f"cd {at.place}/quarantine && cp $(ls *.png | head -1) x && mv x $(ls *.png | tail -1)")
    return at.play("--tags", "release")


@attempt("another video in place of the labelled one, before it comes home", 30)
def _other_result(at: Studio) -> str:
    at.finished_job()
    at.as_jobs_user(f"cd {at.place} && cp input/b.mp4 $(ls result/*.mp4)")
    return at.play_role("release", SIGN, __faceswap_run_seen={"at_home": False})


# The answers of a host that was told what to say; whatever else it is asked, an honest Python does.
LIAR = """#!/usr/bin/python3
import os, sys
said = sys.stdin.buffer.read()
if b'"released"' in said:
    print(open("{answer}").read())
    sys.exit()
reading, writing = os.pipe()
if os.fork() == 0:
    os.close(reading)
    with os.fdopen(writing, "wb") as stream:
        stream.write(said)
    os._exit(0)
os.close(writing)
os.dup2(reading, 0)
os.execv("/usr/bin/python3", ["python3", *sys.argv[1:]])
"""


def _foreign_result(at: Studio, job: str) -> tuple[str, str]:
    """Put an unlabelled video in the place of a job's; the digests of both."""
    video = at.sudo(f"ls {job}/result/*.mp4").strip()
    at.send(at.other, f"{HOME}/mine/other.mp4")
    right = at.sudo(f"sha256sum {video}").split()[0]
    at.sudo(f"cat {HOME}/mine/other.mp4 > {video}")
    return right, at.sudo(f"sha256sum {video}").split()[0]


def _answered(at: Studio, answer: str) -> str:
    """Have a script of one's own tell, as the host's interpreter, what was released."""
    liar = LIAR.format(answer=f"{HOME}/mine/answer")
    for name, text in (("answer", answer), ("python", liar)):
        path = at.folder / name
        path.write_text(text)
        at.send(path, f"{HOME}/mine/{name}")
    at.login(f"chmod -R a+rX {HOME} && chmod 755 {HOME}/mine/python")
    return at.play_role("release", SIGN, ansible_python_interpreter=f"{HOME}/mine/python")


@attempt("a script of one's own as the host's interpreter, which says that a foreign video was released", 32)
def _own_interpreter(at: Studio) -> str:
    at.finished_job()
    truth = at.as_jobs_user(f"/usr/bin/python3 -I {DIR}/bin/supervisor.py released {at.place}")
    right, wrong = _foreign_result(at, at.place)
    return _answered(at, truth.replace(right, wrong))


@attempt("the same, which tells of another film beside the released one", 32)
def _film_beside(at: Studio) -> str:
    at.finished_job()
    told = json.loads(at.as_jobs_user(f"/usr/bin/python3 -I {DIR}/bin/supervisor.py released {at.place}"))
    at.send(at.other, f"{HOME}/mine/holidays.mp4")
    at.sudo(f"cp {HOME}/mine/holidays.mp4 {at.place}/result")
    told["files"]["holidays.mp4"] = hashlib.sha256(at.other.read_bytes()).hexdigest()
    return _answered(at, json.dumps(told))


@attempt("a forged job folder brought as a source, and released", 30)
def _forged_job(at: Studio) -> str:
    at.finished_job()
    forged = f"{at.place}/input/a"
    at.as_jobs_user(f"mkdir {forged} && cd {at.place} && for f in *; do [ $f = input ] || cp -a $f {forged}; done")
    at.as_jobs_user(f"mkdir {forged}/input && cp -a {at.place}/input/*.mp4 {forged}/input")
    right, wrong = _foreign_result(at, forged)
    at.as_jobs_user(f"sed -i s/{right}/{wrong}/g $(grep -rl {right} {forged}/stages)")
    return at.play_role("release", SIGN, __faceswap_run_job_dir=forged)


@attempt("conversion after the consent has been revoked", 24)
def _late_revocation(at: Studio) -> str:
    record = at.trust.record(at.b, "b")
    at.play("--tags", "extract,train", faceswap_run_consent_b=str(record))
    at.trust.revoke(record)
    return at.play("--tags", "convert", faceswap_run_consent_b=str(record), __faceswap_run_prepared=True)


@attempt("a program of a stage called by hand, with another's hashes for what is known of the clip", 27)
def _forged_hashes(at: Studio) -> str:
    at.job_of_ones_own()
    at.send(at.other, f"{HOME}/mine/job/input/b.mp4")
    forge = (
        "import hashlib, json, os, pathlib; "
        "clip = pathlib.Path('input/b.mp4').absolute(); found = clip.stat(); "
        "consented = json.load(open('stages/extract_b/made.json'))['sources']['b']; "
        "mark = [found.st_size, found.st_mtime_ns, found.st_ino]; "
        "json.dump({str(clip): [mark, consented]}, open('stages/extract_b/hashes.json', 'w'))"
    )
    python = at.engine_python()
    by_hand = f"{python} {DIR}/bin/faces/extract.py {shlex.join(EXTRACT_B['arguments'])}"
    at.begin()
    return at.login(
        f'cd {HOME}/mine/job && rm -rf faces_b && {python} -c "{forge}" && {by_hand}; echo \'"code":\' $?'
    )


@attempt("convert called by hand, with a model from elsewhere", 30)
def _convert_by_hand(at: Studio) -> str:
    at.job_of_ones_own()
    at.login(f"cd {HOME}/mine/job && cp -r model foreign && for f in foreign/*.npz; do printf x >> $f; done")
    spec = json.loads(at.sudo(f"cat {JOBS}/honest/stages/convert/spec.json"))
    words = [str(word).replace("model", "foreign") for word in spec["arguments"]]
    at.begin()
    by_hand = f"{at.engine_python()} {DIR}/bin/faces/convert.py {shlex.join(words)}"
    return at.login(f"cd {HOME}/mine/job && {by_hand}; echo '\"code\":' $?")


@attempt("a version of a model from elsewhere, to which a broken one goes back", 30)
def _other_version(at: Studio) -> str:
    at.finished_job("quarantine", "result", "stages/convert", "stages/release")
    at.as_jobs_user(
        f"cd {at.place} && mkdir -p stages/train/checkpoints/4 && cp model/* stages/train/checkpoints/4/ && "
        "for f in stages/train/checkpoints/4/*.npz; do printf x >> $f; done && "
        "for f in model/*.npz; do truncate -s 1000 $f; done"
    )
    return at.play("--tags", "train,convert")


@attempt("a program of one's own among the host's, as byte code", 30)
def _byte_code(at: Studio) -> str:
    at.finished_job("quarantine", "result", "stages/convert", "stages/release")
    at.login(
        f"mkdir -p {HOME}/mine && cp -r {DIR}/bin {HOME}/mine && cd {HOME}/mine/bin && "
        "echo 'print(1)' > ../grp.py && python3 -c \"import py_compile as p; p.compile('../grp.py', 'grp.pyc')\""
    )
    return at.play("--tags", "convert", __faceswap_run_supervisor=f"{HOME}/mine/bin/units.py")

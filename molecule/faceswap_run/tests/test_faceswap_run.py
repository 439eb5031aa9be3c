"""After faceswap_run: is there a result, is it what the role promises, and what may a job do on the host?"""

import base64
import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

testinfra_hosts = ["ansible://faceswap"]

PLACE = "/srv/faceswap-oci"
JOBS = f"{PLACE}/jobs"
JOB = f"{JOBS}/molecule"
USER = "faceswap"

PROBE = """
import av, json, sys
with av.open(sys.argv[1]) as video:
    stream = video.streams.video[0]
    print(json.dumps({
        "frames": sum(1 for _ in video.decode(video=0)), "rate": str(stream.average_rate),
        "size": [stream.width, stream.height], "sounds": len(video.streams.audio),
    }))
"""

# An engine that tells what it may do, and has trained then.
TRIAL = """
import json, mmap, os, pathlib, re, socket, sys

def attempt(what):
    try:
        return str(what())
    except Exception as error:
        return type(error).__name__

status = pathlib.Path("/proc/self/status").read_text()
told = {
    "write": {p: attempt(lambda: pathlib.Path(p, "trial").write_text("x")) for p in (
        "/etc", "/opt/faceswap-oci/engine", "PLACE/bin", "/var/lib", "/usr/local", "PLACE", "JOBS", ".")},
    "home": attempt(lambda: sorted(os.listdir("/home"))),
    "others": [p for p in os.listdir("/proc") if p.isdigit() and os.stat(f"/proc/{p}").st_uid != os.getuid()],
    "setuid": attempt(lambda: (pathlib.Path("program").touch(), os.chmod("program", 0o4755))),
    "kernel": attempt(lambda: pathlib.Path("/proc/sys/kernel/domainname").write_text("x")),
    "namespace": attempt(lambda: os.unshare(os.CLONE_NEWUSER) if hasattr(os, "unshare") else 1 / 0),
    "code": attempt(lambda: len(mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC))),
    "device": attempt(lambda: pathlib.Path("/dev/nvidia0").read_text()),
    "capabilities": re.search(r"CapBnd:\\t(\\w+)", status)[1],
    "no_new_privileges": re.search(r"NoNewPrivs:\\t(\\d)", status)[1],
    "umask": re.search(r"Umask:\\t(\\d+)", status)[1],
    "user": [os.getuid(), os.getgid()],
    "cache": attempt(lambda: pathlib.Path.home().joinpath("trial").write_text("x")),
}
pathlib.Path("told.json").write_text(json.dumps(told))
pathlib.Path("model").mkdir()
pathlib.Path("model/trial_state.json").write_text('{"iterations": 1}')
""".replace("JOBS", JOBS).replace("PLACE", PLACE)


def run(host: Host, *words: str) -> Any:
    return host.run(shlex.join(words))


def root(host: Host, command: str) -> str:
    """What a shell command of root says; fails where it fails."""
    done = run(host, "sudo", "-n", "sh", "-c", command)
    assert done.rc == 0, done
    return str(done.stdout)


def status(host: Host, stage: str, job: str = JOB) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(root(host, f"{PLACE}/bin/units.py status {job} {stage}"))
    return told


@pytest.fixture
def out(host: Host) -> Path:
    """The results on the controller."""
    name = host.backend.get_pytest_id().rpartition("/")[2]
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "a site", "out", name, "molecule")


def test_the_video_is_like_its_source(host: Host, engine: dict[str, Any]) -> None:
    probes = [
        run(host, "sudo", "-n", "-u", USER, engine["python"], "-c", PROBE, path)
        for path in (f"{JOB}/result/molecule.mp4", f"{JOB}/input/a.mp4")
    ]
    assert [probe.rc for probe in probes] == [0, 0], probes
    result, source = (json.loads(probe.stdout) for probe in probes)
    assert result == source
    assert result["sounds"] == 1 and result["frames"] == 125


def test_the_result_came_home_whole_and_alone(host: Host, out: Path) -> None:
    lines = root(host, f"cd {JOB}/result && sha256sum *").splitlines()
    there = {name: digest for digest, name in map(str.split, lines)}
    assert set(there) == {"molecule.mp4", "label.json", "report.html", "log.txt"}
    home = {path.name for path in out.iterdir()}
    assert home == {"molecule.mp4", "molecule.mp4.provenance.json", "report.html", "log.txt", "faces"}
    for name in ("report.html", "log.txt"):  # the video was signed on the way
        assert there[name] == hashlib.sha256((out / name).read_bytes()).hexdigest()


def test_the_report_opens_from_disk(out: Path) -> None:
    page = (out / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert 'src="http' not in page and 'href="http' not in page


@pytest.mark.parametrize("stage", ["extract_a", "extract_b", "train", "convert", "release"])
def test_each_stage_is_complete_and_nobody_works_on_it(host: Host, stage: str) -> None:
    told = status(host, stage)
    assert told["complete"] and not told["alive"], root(host, f"cat {JOB}/stages/{stage}/log.txt")
    assert root(host, f"ls {JOB}/stages/{stage}/wanted 2>&1 || true").endswith("No such file or directory\n")


def test_the_model_has_the_wanted_iterations(host: Host) -> None:
    assert status(host, "train")["iterations"] == 4


def test_programs_are_root_s_and_jobs_are_the_user_s(host: Host) -> None:
    assert root(host, f"find {PLACE} -path {JOBS} -prune -o -not -user root -print") == ""
    assert root(host, f"find {JOBS} -not -user {USER} -print") == ""
    assert root(host, f"stat -c %a {JOBS}") == "750\n"


def test_nothing_is_writable_by_everyone(host: Host) -> None:
    assert root(host, f"find {PLACE} /etc/systemd/system -not -type l -perm -0002") == ""


def test_nobody_else_looks_into_the_jobs(host: Host) -> None:
    """The login of the host has sudo, and without it nothing."""
    assert "Permission denied" in host.run(f"ls {JOBS}").stderr
    assert "Permission denied" in host.run(f"cat {JOB}/input/a.mp4").stderr


def test_nobody_logs_in_as_the_user_of_the_jobs(host: Host) -> None:
    assert host.user(USER).shell == "/usr/sbin/nologin"
    assert root(host, f"passwd --status {USER}").split()[1] in ("L", "LK")


def test_the_boot_brings_back_what_was_cut_off(host: Host) -> None:
    assert host.service("faceswap-oci-resume.service").is_enabled


@pytest.fixture
def told(host: Host) -> dict[str, Any]:
    """What an engine in the unit says of itself, in the place of the trainer in a copy of the job."""
    job, place = f"{JOBS}/trial", "/opt/trial"
    engine = {"command": ["/usr/bin/python3", "-c", TRIAL], "python": "/usr/bin/python3"}
    spec = {
        "stage": "train",
        "engine_file": f"{place}/engine.json",
        "arguments": ["train", "-A", "faces_a", "-B", "faces_b", "-m", "model"],
        "inputs": ["faces_a", "faces_b"],
        "outputs": ["model"],
        "iterations": 1,
        "model": "model",
    }
    text = base64.b64encode(json.dumps(engine).encode()).decode()
    root(
        host,
        f"rm -rf {job} {place}; cp -a {JOB} {job}; rm -r {job}/model {job}/stages/train; mkdir {place}; "
        f"echo {text} | base64 -d > {place}/engine.json; echo kept > /dev/nvidia0",
    )
    order = base64.b64encode(json.dumps(spec).encode()).decode()
    try:
        root(host, f"echo {order} | base64 -d | {PLACE}/bin/units.py start {job} train")
        root(host, f"while {PLACE}/bin/units.py status {job} train | grep -q '\"alive\": true'; do sleep 0.2; done")
        end = status(host, "train", job)
        assert end["complete"], root(host, f"cat {job}/stages/train/log.txt")
        said: dict[str, Any] = json.loads(root(host, f"cat {job}/told.json"))
        return said
    finally:
        root(host, f"rm -rf {job} {place} /dev/nvidia0")


@pytest.mark.parametrize(
    ("change", "code"), [("cp consent/a.yml.sig consent/b.yml.sig", 25), ("rm consent/b.yml.sig", 20)]
)
def test_a_stage_without_consent_is_refused_by_the_host_itself(host: Host, change: str, code: int) -> None:
    job = f"{JOBS}/unconsented"
    root(
        host, f"rm -rf {job}; cp -a {JOB} {job}; rm -r {job}/model {job}/stages/train/*made.json; cd {job}; {change}"
    )
    try:
        spec = f"{JOB}/stages/train/spec.json"
        done = run(host, "sudo", "-n", "sh", "-c", f"{PLACE}/bin/units.py start {job} train < {spec}")
        assert done.rc == code and json.loads(done.stdout)["code"] == code, done
    finally:
        root(host, f"rm -rf {job}")


def test_a_job_in_its_unit(host: Host, told: dict[str, Any]) -> None:
    """One stage, as each takes seconds."""
    refused = {"PermissionError", "OSError", "FileNotFoundError"}
    allowed = {path for path, said in told["write"].items() if said not in refused}
    assert allowed == {JOBS, "."}, "nothing but the jobs can be written"
    assert told["home"] in refused | {"[]"}, "the homes of people cannot be read"
    assert told["others"] == [], "processes of others are not seen"
    assert told["setuid"] == "PermissionError"
    assert told["kernel"] in refused
    assert told["capabilities"] == "0" * 16 and told["no_new_privileges"] == "1" and told["umask"] == "0027"
    assert told["user"] == [host.user(USER).uid, host.user(USER).gid]
    assert told["cache"] == "1", "engines keep what they compile in their home"
    # What a GPU needs.
    assert told["device"] == "kept\n", "the devices of the host are seen"
    assert told["code"] == "4096", "code is made on the fly"

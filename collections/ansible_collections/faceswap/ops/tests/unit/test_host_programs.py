"""The controller asks only those programs on a host that are the role's own."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.faceswap.ops.plugins.action import consent, supervisor, trusted_signers
from ansible_collections.faceswap.ops.plugins.plugin_utils import host_programs, trust_end
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import HostPrograms, RefusedError

PROGRAM = """
import json, pathlib, sys
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import neighbour
print(json.dumps({"words": sys.argv[1:], "stdin": sys.stdin.read(), "n": neighbour.N}))
"""


def execute(command: str, in_data: bytes = b"") -> dict[str, Any]:
    done = subprocess.run(["sh", "-c", command], input=in_data, capture_output=True, check=False)
    return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bin with blank"
    (made / "faces").mkdir(parents=True)
    (made / "supervisor.py").write_text(PROGRAM)
    (made / "neighbour.py").write_text("N = 1")
    (made / "faces" / "extract.py").write_text("pass")
    (made / "README").write_text("no program")
    return made


def programs(folder: Path) -> HostPrograms:
    return HostPrograms(execute, sys.executable, f"{folder}/supervisor.py", host_programs.digests(folder))


def test_the_roles_own_programs_answer(folder: Path) -> None:
    answer = programs(folder).ask("start", "/jobs/anna b", "train", order={"spec": {"ä": 1}})
    assert answer["words"] == ["start", "/jobs/anna b", "train"]
    assert json.loads(answer["stdin"]) == {"spec": {"ä": 1}}
    assert programs(folder).ask("status")["stdin"] == ""


@pytest.mark.parametrize(
    "what", ["changed", "more", "gone", "below", "a link", "a linked folder", "a library", "byte code"]
)
def test_other_programs_are_not_asked(folder: Path, what: str) -> None:
    known = programs(folder)
    if what == "changed":
        (folder / "neighbour.py").write_text("N = 2")
    elif what == "more":
        (folder / "json.py").write_text("")
    elif what == "gone":
        (folder / "neighbour.py").unlink()
    elif what == "below":
        (folder / "faces" / "extract.py").write_text("evil")
    elif what == "a link":
        (folder / "neighbour.py").rename(folder.parent / "n.py")
        (folder / "neighbour.py").symlink_to(folder.parent / "n.py")
    elif what == "a linked folder":
        (folder / "faces").rename(folder.parent / "faces")
        (folder / "faces").symlink_to(folder.parent / "faces")
    elif what == "byte code":  # which Python runs without a source, too
        (folder / "faces" / "tempfile.pyc").write_text("")
    else:
        (folder / "neighbour.so").write_text("")
    with pytest.raises(RefusedError) as raised:
        known.ask("start")
    assert raised.value.code == 30 and raised.value.differing
    assert raised.value.task_result()["consent_code"] == 30


def test_byte_code_that_lies_about_is_not_run(folder: Path) -> None:
    import importlib.util
    import py_compile

    source = folder / "neighbour.py"
    cached = Path(importlib.util.cache_from_source(str(source)))
    stat = source.stat()
    source.write_text("N = 9")
    py_compile.compile(str(source), str(cached), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_text("N = 1")
    assert stat.st_size == source.stat().st_size and cached.exists()
    (folder / "faces" / "__pycache__").mkdir()
    assert programs(folder).ask("status")["n"] == 1
    assert not list(folder.rglob("__pycache__")), "children find it, which are started without our flags"
    (folder.parent / "elsewhere").mkdir()
    (folder / "__pycache__").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(RefusedError):
        programs(folder).ask("status")


def test_a_program_of_another_name_is_not_asked(folder: Path) -> None:
    with pytest.raises(RefusedError, match="runs no stages"):
        HostPrograms(execute, sys.executable, f"{folder}/evil.py", {})


def test_what_the_host_says_is_told(folder: Path) -> None:
    def answer(text: str) -> HostPrograms:
        (folder / "supervisor.py").write_text(f"print({text!r})")
        return programs(folder)

    with pytest.raises(RefusedError) as refused:
        answer('{"error": "No consent.", "code": 20}').ask("start")
    assert str(refused.value) == "No consent." and refused.value.code == 20
    with pytest.raises(AnsibleActionFail, match=r"^The disk is full.$"):
        answer('{"error": "The disk is full."}').ask("start")
    with pytest.raises(AnsibleActionFail, match="did not answer"):
        answer("nonsense").ask("start")


def test_the_controllers_own_list_of_programs_is_the_roles() -> None:
    files = host_programs.digests(host_programs.role_files())
    assert {"supervisor.py", "units.py", "gate.py", "consent.py", "faces/extract.py", "release/release.py"} <= set(
        files
    )


# -- consent and trusted_signers -----------------------------------------------------------------------------


def action(monkeypatch: pytest.MonkeyPatch, module: Any, check: bool = False, **spec: Any) -> Any:
    made = module.ActionModule.__new__(module.ActionModule)
    monkeypatch.setattr(module.ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(made, "validate_argument_spec", lambda **_: (None, spec), raising=False)
    monkeypatch.setattr(made, "_task", SimpleNamespace(check_mode=check, diff=True, delegate_to=None), raising=False)
    monkeypatch.setattr(made, "_loader", SimpleNamespace(path_dwim=lambda path: path), raising=False)
    monkeypatch.setattr(made, "_templar", SimpleNamespace(template=lambda value: value), raising=False)
    monkeypatch.setattr(made, "_low_level_execute_command", execute, raising=False)
    return made


def test_without_a_record_the_task_is_refused_and_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    monkeypatch.setattr(consent.audit_log, "append", logged.append)
    spec = {"record_a": "", "record_b": "", "source_a": None, "source_b": None, "dest": None}
    result = action(monkeypatch, consent, **spec).run(task_vars={"inventory_hostname": "studio"})
    assert result["failed"] and result["consent_code"] == 20 and "faceswap_run_consent_a" in result["msg"]
    assert logged[0]["code"] == 20 and logged[0]["host"] == "studio"
    logged.clear()
    assert action(monkeypatch, consent, check=True, **spec).run()["consent_code"] == 20
    assert not logged


def test_the_demos_records_hold_and_one_for_both_sides_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent.audit_log, "append", lambda _: "")
    demo = Path(__file__).parents[6] / "demo"
    spec: dict[str, Any] = {f"record_{side}": str(demo / "consent" / f"{side}.yml") for side in "ab"}
    spec |= {"source_a": str(demo / "clipA.mp4"), "source_b": str(demo / "clipB.mp4"), "dest": None}
    result = action(monkeypatch, consent, **spec).run()
    assert not result["changed"] and result["consents"]["b"]["id"] == "demo-b"
    logged: list[Any] = []
    monkeypatch.setattr(consent.audit_log, "append", logged.append)
    other = action(monkeypatch, consent, **{**spec, "source_b": spec["source_a"]}).run()
    assert other["consent_code"] == 27 and "demo-b of side B is the demo's, and counts for its clips" in other["msg"]
    assert logged[0]["consents"] == {"a": {"id": "demo-a"}, "b": {"id": "demo-b"}}
    assert action(monkeypatch, consent, **{**spec, "record_b": spec["record_a"]}).run()["consent_code"] == 28


def test_each_job_gets_the_consents_once(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[str] = []

    def bring(*args: Any) -> dict[str, Any]:
        came.append(args[-2]["dest"])
        return {"changed": True}

    monkeypatch.setattr(consent.ActionModule, "_bring", bring)
    demo = Path(__file__).parents[6] / "demo" / "consent"
    spec: dict[str, Any] = {f"record_{side}": str(demo / f"{side}.yml") for side in "ab"}
    spec |= {"source_a": None, "source_b": None}
    said = ""
    for job in ("one", "one", "two", "one"):
        result = action(monkeypatch, consent, **spec, dest=f"/jobs/{job}", brought=said).run()
        said = result["brought"]
    assert came == ["/jobs/one", "/jobs/two", "/jobs/one"]
    monkeypatch.setattr(consent.ActionModule, "_bring", lambda *_: {"unreachable": True})
    assert "brought" not in action(monkeypatch, consent, **spec, dest="/jobs/three", brought=said).run()


def test_a_host_gets_the_lists_of_the_controller_and_keeps_the_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_end.pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    monkeypatch.setattr(trust_end.os, "geteuid", lambda: 1234)
    folder = tmp_path / ".config" / "faceswap-oci"
    order: dict[str, Any] = {"allowed_signers": "jo@x key\n", "check": True, "jobs": "/j"}
    order["revocations"] = {"text": "serial: 2\n", "sig": "two"}
    assert trust_end.bring(order)["changed"] and not folder.exists()
    order["check"] = False
    assert trust_end.bring(order) == {"path": str(folder / "allowed_signers"), "before": "", "changed": True}
    assert not trust_end.bring(order)["changed"]
    assert (folder / "allowed_signers").stat().st_mode & 0o777 == 0o644
    order["revocations"] = {"text": "serial: 1\n", "sig": "one"}
    assert not trust_end.bring(order)["changed"]
    assert (folder / "revoked.yml.sig").read_text() == "two"
    order["revocations"] = {"text": "serial: 10\n", "sig": "ten"}
    assert trust_end.bring(order)["changed"]
    assert (folder / "revoked.yml").read_text() == "serial: 10\n"


def revoked(serial: int, *ids: str) -> dict[str, str]:
    module = host_programs.role_module(host_programs.role_files(), "consent")
    days = dict.fromkeys(ids, datetime.date(2026, 11, 23))
    return {"text": module.dump_revocations(module.Revocations(serial, days)), "sig": f"of {serial}"}


def test_no_record_on_a_hosts_list_is_lost_to_another_controllers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_end.pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    monkeypatch.setattr(trust_end.os, "geteuid", lambda: 1234)
    order: dict[str, Any] = {"allowed_signers": "jo@x key\n", "check": False, "jobs": "/j"}
    order["revocations"] = revoked(2, "a", "b")
    assert trust_end.bring(order)["changed"]
    for serial, lost in ((1, "c"), (2, "c"), (3, "b")):
        answer = trust_end.bring(order | {"revocations": revoked(serial, "a", "c"), "allowed_signers": "x"})
        assert answer["code"] == 29 and "have parted" in answer["error"] and f"lacks {lost} " in answer["error"]
    kept = tmp_path / ".config" / "faceswap-oci"
    assert (kept / "revoked.yml").read_text() == order["revocations"]["text"]
    assert (kept / "allowed_signers").read_text() == "jo@x key\n"
    assert trust_end.bring(order | {"revocations": revoked(4, "a", "b", "c")})["changed"]


def test_the_jobs_user_can_read_what_root_brought_under_any_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_end, "SYSTEM", tmp_path / "etc")
    monkeypatch.setattr(trust_end.os, "geteuid", lambda: 0)
    order = {"allowed_signers": "jo@x key\n", "check": False, "revocations": revoked(1, "a"), "jobs": "/j"}
    before = os.umask(0o077)
    try:
        trust_end.bring(order)
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "etc", *(tmp_path / "etc").iterdir())}
        names = ("allowed_signers", "revoked.yml", "revoked.yml.sig", "jobs.json")
        assert modes == {"etc": 0o755, **dict.fromkeys(names, 0o644)}
        (tmp_path / "etc").chmod(0o700)  # as an earlier version left it
        assert not trust_end.bring(order)["changed"]
        assert (tmp_path / "etc").stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_a_list_on_the_host_that_is_no_text_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_end, "SYSTEM", tmp_path)
    monkeypatch.setattr(trust_end.os, "geteuid", lambda: 0)
    (tmp_path / "allowed_signers").write_bytes(b"jo@x key J\xf6\n")
    order = {"allowed_signers": "jo@x key\n", "check": False, "revocations": None, "jobs": "/j"}
    assert trust_end.bring(order)["changed"]
    assert (tmp_path / "allowed_signers").read_text() == "jo@x key\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of lists of root and of the login 1234, who has become root."""
    monkeypatch.setattr(trust_end, "SYSTEM", tmp_path / "etc")
    monkeypatch.setattr(trust_end.pwd, "getpwuid", lambda user: SimpleNamespace(pw_dir=str(tmp_path / str(user))))
    monkeypatch.setattr(trust_end.os, "geteuid", lambda: 0)
    monkeypatch.setitem(trust_end.os.environ, "SUDO_UID", "1234")
    return tmp_path


def test_a_host_keeps_where_jobs_were_ever_made(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bring(jobs: Path, check: bool = False) -> dict[str, Any]:
        return trust_end.bring({"allowed_signers": None, "revocations": None, "jobs": str(jobs), "check": check})

    one, two, three = (host / name / "jobs" for name in ("a disk", "b", "c"))
    for jobs in (one, two, one):
        jobs.mkdir(parents=True, exist_ok=True)
        assert not bring(jobs)["changed"], "no run is changed by what it keeps"
    kept = host / "etc" / "jobs.json"
    assert json.loads(kept.read_text()) == [str(one), str(two)]
    assert [path.name for path in kept.parent.iterdir()] == ["jobs.json"], "whom it trusts is not its own to say"
    with monkeypatch.context() as login:  # before it was root who ran them
        login.setattr(trust_end.os, "geteuid", lambda: 1234)
        bring(three)
        assert bring(three, check=True)["jobs"] == [str(one), str(two)], "root's are found by him"
    two.rmdir()
    three.mkdir(parents=True)
    looked = bring(host / "never", check=True)
    assert looked["jobs"] == [str(one), str(three)] and looked["gone"] == [str(two), str(host / "never")]
    assert str(host / "never") not in kept.read_text()


@pytest.mark.parametrize("text", ["{}", "[1]", '["jobs"]', "[", "[" * 200_000])
def test_a_list_of_folders_that_cannot_be_read_is_told_and_kept(host: Path, text: str) -> None:
    (host / "etc").mkdir()
    kept = host / "etc" / "jobs.json"
    kept.write_text(text)
    order = {"allowed_signers": None, "revocations": None, "jobs": "/j"}
    for check in (True, False):
        with pytest.raises((ValueError, RecursionError)):
            trust_end.bring({**order, "check": check})
    assert kept.read_text() == text


def test_two_runs_at_once_lose_no_folder(host: Path) -> None:
    (host / "etc").mkdir()
    threads = [threading.Thread(target=trust_end.add, args=(f"/{n}", host / "etc")) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trust_end.listed(host / "etc")) == sorted(f"/{n}" for n in range(20))


@pytest.mark.parametrize("way", ["nobody is trusted here", "the host is the controller"])
def test_where_no_list_is_brought_the_host_keeps_where_jobs_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    module = host_programs.role_module(host_programs.role_files(), "consent")
    monkeypatch.setattr(module, "SYSTEM_TRUST", tmp_path / "etc")
    monkeypatch.setattr(module, "OWN_TRUST", "nothing/of/ours")
    ran: list[Any] = []

    def run_there(*words: Any) -> dict[str, Any]:
        ran.append(json.loads(words[-1]))
        return {"rc": 0, "stdout": json.dumps({"changed": False, "path": "/x", "before": ""}), "stderr": ""}

    monkeypatch.setattr(trusted_signers, "run_there", run_there)
    made = action(monkeypatch, trusted_signers, jobs="/srv/jobs")
    local = SimpleNamespace(transport="local", become=None)
    far = SimpleNamespace(transport="ssh", become=None)
    made._connection = far if way.startswith("nobody") else local
    if made._connection is local:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "allowed_signers").write_text("jo@x key\n")
    assert made.run() == {"changed": False, "path": "/x"}
    assert ran == [{"allowed_signers": None, "revocations": None, "jobs": "/srv/jobs", "check": False}]


# -- stop and purge ------------------------------------------------------------------------------------------


def test_each_place_is_asked_for_also_after_one_that_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "supervisor.py").write_text(
        "import json, sys; bad = sys.argv[2] == '/b'\n"
        "print(json.dumps({'error': 'It is closed.'} if bad else {'changed': True, 'removed': sys.argv[1:]}))"
    )
    monkeypatch.setattr(host_programs, "role_files", lambda _: folder)
    spec = {"supervisor": f"{folder}/supervisor.py", "verb": "purge", "places": ["/a", "/b", "/c"], "ids": ["x"]}
    result = action(monkeypatch, supervisor, **spec).run()
    assert result["failed"] and result["changed"] and result["msg"] == "/b: It is closed."
    assert {place: answer["removed"] for place, answer in result["answers"].items()} == {
        place: ["purge", place, "x"] for place in ("/a", "/c")
    }
    assert "failed" not in action(monkeypatch, supervisor, **{**spec, "places": ["/a"]}).run()


def test_other_programs_than_the_roles_stop_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"supervisor": f"{folder}/supervisor.py", "verb": "stop", "places": ["/a"], "ids": []}
    result = action(monkeypatch, supervisor, **spec).run()
    assert result["failed"] and result["consent_code"] == 30 and "are not those of the role" in result["msg"]
    result = action(monkeypatch, supervisor, **{**spec, "supervisor": f"{folder}/evil.py"}).run()
    assert result["failed"] and result["consent_code"] == 30

"""The thin wrapper against the real ansible-runner and ansible-playbook, on small checkouts made here."""

import fcntl
import io
import json
import os
import pty
import re
import signal
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faceswap_oci import cli, environment
from faceswap_oci import play as player
from faceswap_oci.play import Order, Outcome, UsageError, play
from faceswap_oci.screen import Screen, clock_text

REPOSITORY = Path(__file__).resolve().parents[1]

# Sends progress as the real plugin does; with `hold` it then locks that file, starts a child that inherits
# the lock (as a module of a local connection would), and never ends by itself.
PLUGIN = """
import fcntl, json, subprocess, time
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        arguments = self._task.args
        for done in range(1, int(arguments.get("updates", 0)) + 1):
            progress = {"stage": "train", "done": done, "text": f"train  {done}/3 " + "." * 50}
            Display().display(json.dumps({"faceswap_progress": progress}))
        if "hold" in arguments:
            lock = open(arguments["hold"] + ".part", "w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            subprocess.Popen(["sleep", "300"], pass_fds=[lock.fileno()])
            import os
            os.rename(arguments["hold"] + ".part", arguments["hold"])
            time.sleep(300)
        result.update(arguments.get("result", {}))
        return result
"""

HOLD = """
- name: Train
  hosts: all
  gather_facts: false
  tasks:
    - name: Follow the training
      follow: {updates: 2, hold: "{{ playbook_dir }}/held"}
"""


def one_play(*tasks: str) -> str:
    body = "".join(f"    - {task}\n" for task in tasks)
    return f"- name: Train\n  hosts: all\n  gather_facts: false\n  tags: [train]\n  tasks:\n{body}"


def result_job(expression: str) -> str:
    """A task that gives the value of `expression`, seen from inside the play, as the name of the job."""
    return f'set_fact: {{faceswap_run_result: {{job: "{{{{ {expression} }}}}"}}}}'


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a checkout with the given site.yml, in a folder with a space in its name."""

    def make(site: str) -> Path:
        root = tmp_path / "a clone"
        (root / "roles" / "faceswap_run").mkdir(parents=True)
        (root / "plugins").mkdir()
        (root / "plugins" / "follow.py").write_text(PLUGIN)
        (root / "inventory" / "demo").mkdir(parents=True)
        (root / "inventory" / "demo" / "hosts").write_text(
            'this ansible_connection=local ansible_python_interpreter="{{ ansible_playbook_python }}"\n'
        )
        (root / "ansible.cfg").write_text("[defaults]\ninventory = inventory/demo\naction_plugins = plugins\n")
        (root / "site.yml").write_text(site)
        return root

    return make


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "a state" / "faceswap-oci"


def command(root: Path, *words: str, **variables: str) -> dict[str, Any]:
    """The arguments for subprocess that run the wrapper in `root`, its state beside it."""
    here = {"XDG_STATE_HOME": str(root.parent / "a state"), "PYTHONPATH": str(REPOSITORY / "src")}
    return {
        "args": [sys.executable, "-m", "faceswap_oci", *words],
        "cwd": root,
        "env": {**os.environ, **here, **variables},
    }


def run(root: Path, *words: str, **variables: str) -> tuple[int, dict[str, Any], str]:
    """Run the wrapper with --json: exit code, the object in the last line, and what people are told."""
    done = subprocess.run(**command(root, *words, "--json", **variables), capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["exit_code"] == done.returncode
    return done.returncode, outcome, done.stderr


def play_here(root: Path, state: Path, screen: Screen | None = None, **order: Any) -> Outcome:
    kept, _ = environment.allowed(os.environ)
    return play(Order(root, **order), screen or Screen(io.StringIO()), kept, state)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen in {seconds} s"
        time.sleep(0.02)


def nobody_holds(lock: Path) -> bool:
    """True if the worker of ansible-playbook and its child, which lock this file, are gone."""
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def files_with(folder: Path, text: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files, f"{folder} holds no file"
    return [path for path in files if text.encode() in path.read_bytes()]


# --- results ----------------------------------------------------------------------------------------------


def test_a_good_run_gives_a_result_for_programs(checkout: Callable[[str], Path]) -> None:
    root = checkout(
        one_play(
            "follow: {updates: 2, result: {changed: true}}",
            "debug: {msg: 'the word faceswap_progress in an output is no progress'}",
        )
        + "- name: No cloud here\n  hosts: cloud\n  tasks: [{debug: }]\n"
        + "- name: Release\n  hosts: all\n  gather_facts: false\n  tasks:\n"
        "    - follow: {result: {faceswap_run_result: {job: j, folder: out/j, video: out/j/j.mp4, report: r}}}\n"
    )
    code, outcome, told = run(root, "demo", FACESWAP_OCI_STARTED=str(time.time() - 100))
    assert (code, outcome["status"], outcome["failures"]) == (0, "ok", [])
    assert [outcome[key] for key in ("job", "folder", "video", "report")] == ["j", "out/j", "out/j/j.mp4", "r"]
    assert outcome["changed"] == 1
    assert [phase["name"] for phase in outcome["phases"]] == ["environment set-up", "Train", "Release"]
    assert outcome["phases"][0]["seconds"] == pytest.approx(100, abs=10)
    assert outcome["seconds"] >= sum(phase["seconds"] for phase in outcome["phases"])
    assert told.splitlines().count("Train") == 1, "one heading for a play, however many tasks it has"
    table = told[told.index("environment set-up") :]
    assert re.search(r"^Train +0:0\d$", table, re.M)
    assert re.search(r"^total +1:4\d$", table, re.M)
    assert re.search(r"^video +out/j/j.mp4$", table, re.M)
    log = Path(outcome["log"]).read_text()
    assert "the word faceswap_progress in an output" in log
    assert log.count("train  ") == 1, "of the progress only the last line belongs in the log"
    kept = files_with(root.parent / "a state", "train  ")
    assert kept == [Path(outcome["log"])], "an update a second must not become a file a second"


def test_a_result_set_as_a_fact_counts_too(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout(one_play("set_fact: {faceswap_run_result: {job: x, folder: f, video: v, report: r}}"))
    outcome = play_here(root, state)
    assert (outcome.job, outcome.folder, outcome.video, outcome.report) == ("x", "f", "v", "r")


def test_a_failed_task_is_told_in_one_sentence(checkout: Callable[[str], Path]) -> None:
    root = checkout(
        one_play(
            "{fail: {msg: ignored}, ignore_errors: true}",
            "{block: [{fail: {msg: rescued}}], rescue: [{debug: }]}",
            "{name: Look, fail: {msg: 'The clip is missing: put it there.'}}",
        )
    )
    code, outcome, told = run(root, "run")
    sentence = "The clip is missing: put it there."
    assert (code, outcome["status"]) == (1, "failed")
    failure = {"host": "this", "play": "Train", "task": "Look", "message": sentence, "consent_code": None}
    assert outcome["failures"] == [failure]
    assert f"Train failed on this, at 'Look': {sentence}\nThe full log: {outcome['log']}\n" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("code", "exit_code"), [(20, 20), (32, 32), (19, 1), (33, 1), ("true", 1), ("no", 1)])
def test_want_of_consent_has_its_own_exit_code(checkout: Callable[[str], Path], code: object, exit_code: int) -> None:
    root = checkout(
        one_play(f"{{name: Look, follow: {{result: {{failed: true, msg: It was revoked., consent_code: {code}}}}}}}")
    )
    given, outcome, told = run(root, "run")
    assert (given, outcome["status"]) == (exit_code, "failed")
    assert outcome["failures"][0]["consent_code"] == (code if exit_code > 1 else None)
    assert "It was revoked." in told


def test_whose_certificate_signed_is_told(checkout: Callable[[str], Path]) -> None:
    root = checkout(one_play("follow: {result: {faceswap_run_result: {job: j, video: j.mp4, certificate: test}}}"))
    _, outcome, told = run(root, "run")
    assert outcome["certificate"] == "test"
    assert "signed with a TEST certificate, which proves nothing about who made it" in told


def test_rescued_and_ignored_failures_are_no_failure(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout(
        one_play(
            "{fail: {msg: ignored}, ignore_errors: true}",
            "{block: [{fail: {msg: rescued}}], rescue: [{debug: }]}",
        )
    )
    outcome = play_here(root, state)
    assert (outcome.status, outcome.exit_code, outcome.failures) == ("ok", 0, [])


def test_only_hosts_that_failed_in_the_end_are_told(checkout: Callable[[str], Path], state: Path) -> None:
    again = "{fail: {msg: for good}, when: inventory_hostname == 'two'}"
    root = checkout(one_play(f"{{block: [{{fail: {{msg: rescued}}}}], rescue: [{again}]}}"))
    outcome = play_here(root, state, inventory=["one,two,"], values={"ansible_connection": "local"})
    assert [(failure.host, failure.message) for failure in outcome.failures] == [("two", "for good")]


def test_a_failed_command_in_a_loop_is_told_with_its_last_words(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout(
        one_play("{command: \"sh -c 'echo first >&2; echo no face found >&2; exit {{ item }}'\", loop: [0, 3]}")
    )
    [failure] = play_here(root, state).failures
    assert re.fullmatch(r".*non-zero return code: no face found", failure.message)


def test_an_unreachable_host_has_its_own_code(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout(one_play("ping: "))
    connection = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    outcome = play_here(root, state, inventory=["far,"], values=connection)
    assert (outcome.status, outcome.exit_code) == ("unreachable", 4)
    assert "Connection refused" in outcome.failures[0].message


def test_success_without_a_host_is_no_success(checkout: Callable[[str], Path]) -> None:
    code, outcome, told = run(checkout(one_play("debug: ")), "run", "--tags", "convert")
    assert (code, outcome["status"]) == (3, "nothing run")
    assert "Nothing was run: no host" in told


@pytest.mark.parametrize(
    ("site", "cause"),
    [
        ("- hosts: all\n  roles: [nix]\n", "role 'nix' was not found"),
        ("- hosts: all\n  tasks\n  x: y", "YAML"),
    ],
)
def test_a_site_that_ansible_cannot_play(checkout: Callable[[str], Path], state: Path, site: str, cause: str) -> None:
    outcome = play_here(checkout(site), state)
    assert (outcome.status, outcome.exit_code) == ("error", 5)
    assert outcome.message is not None
    assert outcome.message.startswith("Ansible could not play site.yml: ")
    assert cause in outcome.message


# --- what is asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "--tags", "train,trian"], "There is no tag 'trian'; the tags are plan, "),
        (["run", "-i", "nowhere"], "There is no inventory nowhere: give "),
        (["run", "-e", "@job.yml"], "-e @job.yml: there is no such file; check "),
        (["run", "-e", "iterations"], "-e takes @file.yml or name=value"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_played(
    checkout: Callable[[str], Path], words: list[str], sentence: str
) -> None:
    root = checkout(one_play("debug: "))
    code, outcome, told = run(root, *words)
    assert (code, outcome["status"], outcome["log"]) == (2, "refused", None)
    assert told.startswith(sentence)
    assert len(told.splitlines()) == 1
    assert not (root.parent / "a state").exists()


def test_a_state_folder_that_cannot_be_made(checkout: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, told = run(checkout(one_play("debug: ")), "run", XDG_STATE_HOME=str(tmp_path / "file"))
    assert code == 2
    assert re.fullmatch(r"Cannot keep the run's log in .*/file/.*: name a folder .* XDG_STATE_HOME\.\n", told)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "inf"])
def test_a_timeout_is_a_number_of_seconds(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["run", f"--timeout={text}"])
    assert "is not a number of seconds above 0" in capsys.readouterr().err


def test_the_checkout_is_found_from_below_and_no_other_project_is_taken(
    checkout: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = checkout("")
    below = root / "inventory" / "demo"
    assert cli.find_root(below) == root
    monkeypatch.setattr(cli, "__file__", str(below / "cli.py"))
    assert cli.find_root(tmp_path) == root, "an editable install knows its checkout"
    monkeypatch.setattr(cli, "__file__", "/nowhere/cli.py")
    (tmp_path / "site.yml").touch()
    (tmp_path / "ansible.cfg").touch()
    with pytest.raises(UsageError, match="change into your clone"):
        cli.find_root(tmp_path)


def test_extra_vars_reach_the_play_and_values_win(checkout: Callable[[str], Path], tmp_path: Path) -> None:
    root = checkout(one_play(result_job("[a, b, c, d, ansible_check_mode]")))
    (tmp_path / "job.yml").write_text("a: from the file\nb: from the file\n")
    words = ["-e", "b=300", "-e", "@../job.yml", "-e", "c=true", "-e", "d=two words = three", "--check"]
    _, outcome, told = run(root, "run", "-i", "inventory/demo", *words)
    assert outcome["job"] == ["from the file", 300, True, "two words = three", True], told


def test_stop_plays_the_tag_stop_only(checkout: Callable[[str], Path]) -> None:
    root = checkout(
        one_play("{fail: {msg: this is not the stop}}")
        + "- name: Stop\n  hosts: all\n  gather_facts: false\n  tags: [never, stop]\n  tasks: [{debug: }]\n"
    )
    code, outcome, _ = run(root, "stop")
    assert (code, [phase["name"] for phase in outcome["phases"]]) == (0, ["Stop"])


def test_destroy_plays_its_own_playbook_and_shows_what_it_says(checkout: Callable[[str], Path]) -> None:
    root = checkout(one_play("{fail: {msg: this is not the tear-down}}"))
    (root / "playbooks").mkdir()
    (root / "playbooks" / "destroy.yml").write_text(
        "- name: Destroy\n  hosts: oci\n  gather_facts: false\n"
        "  tasks: [{debug: {msg: '0 things of {{ what }} left in here'}}]\n"
    )
    cloud = root / "inventory" / "cloud"
    cloud.write_text("[oci]\nstudio ansible_connection=local\n")
    code, outcome, told = run(root, "destroy", "-i", str(cloud), "-e", "what=studio")
    assert (code, [phase["name"] for phase in outcome["phases"]]) == (0, ["Destroy"])
    assert told.splitlines().count("  0 things of studio left in here") == 1
    # Ours, with the demo's inventory too: nothing of it is in a cloud.
    for clone, state in ((root, {}), (REPOSITORY, {"XDG_STATE_HOME": str(root.parent / "a state")})):
        code, outcome, told = run(clone, "destroy", **state)
        assert (code, outcome["status"], outcome["phases"]) == (3, "nothing run", [])
        assert "Nothing was run: no host of this inventory" in told


def test_destroy_can_be_tried(checkout: Callable[[str], Path]) -> None:
    root = checkout("")
    (root / "playbooks").mkdir()
    (root / "playbooks" / "destroy.yml").write_text(one_play(result_job("ansible_check_mode")))
    for words, tried in ((["--check"], True), ([], False)):
        code, outcome, _ = run(root, "destroy", *words)
        assert (code, outcome["job"]) == (0, tried)


def test_what_was_only_tried_is_not_named_as_made(checkout: Callable[[str], Path]) -> None:
    root = checkout(one_play("set_fact: {faceswap_run_result: {job: x, video: v, report: r}}"))
    for words, path, said in (([], "v", "0 changed"), (["--check"], None, "0 would change")):
        _, outcome, told = run(root, "run", *words)
        assert (outcome["video"], outcome["report"]) == (path, path and "r")
        assert f"\n{said}\n" in told and ("video" in told) is bool(path)


def test_what_a_play_says_keeps_its_lines(checkout: Callable[[str], Path]) -> None:
    _, _, told = run(checkout(one_play('debug: {msg: "studio: there\\nssh studio"}')), "run")
    assert "\n  studio: there\n  ssh studio\n" in told


def test_a_warning_of_a_module_is_seen(checkout: Callable[[str], Path]) -> None:
    root = checkout(one_play("warner: "))
    (root / "library").mkdir()
    (root / "library" / "warner.py").write_text(
        "from ansible.module_utils.basic import AnsibleModule\n"
        "module = AnsibleModule({})\n"
        "module.warn('other stacks stand and bill')\n"
        "module.exit_json()\n"
    )
    code, _, told = run(root, "run")
    assert (code, told.count("  Warning: other stacks stand and bill\n")) == (0, 1)


def test_an_interrupted_destroy_says_that_things_stand(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout("")
    (root / "playbooks").mkdir()
    (root / "playbooks" / "destroy.yml").write_text(HOLD)
    outcome = play_here(root, state, playbook=player.DESTROY, timeout=10)
    assert (outcome.status, outcome.exit_code) == ("timeout", 124)
    assert outcome.message is not None
    assert outcome.message.endswith("still there and may cost money: the same command again goes on.")
    wait_until(lambda: nobody_holds(root / "playbooks" / "held"), "the end of the worker and its child", 5)


@pytest.mark.skipif(not (REPOSITORY / "site.yml").exists(), reason="site.yml is not there yet")
def test_the_tags_are_those_of_the_playbooks() -> None:
    ansible_playbook = Path(environment.allowed(os.environ)[0]["PATH"].split(os.pathsep)[0]) / "ansible-playbook"
    listed = subprocess.run(
        [ansible_playbook, "--list-tags", "site.yml"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    found = {tag for tags in re.findall(r"TAGS: \[(.*?)\]", listed) for tag in re.split(", *", tags) if tag}
    assert found - {"always", "never"} == set(cli.TAGS)


# --- ansible-runner's habits -------------------------------------------------------------------------------


def test_no_secret_of_the_environment_is_kept_or_reaches_the_play(checkout: Callable[[str], Path]) -> None:
    names = ["AWS_SECRET_ACCESS_KEY", "ANSIBLE_BECOME_PASS", "PIP_INDEX_URL", "FACESWAP_ALLOWED"]
    lookups = "[" + ", ".join(f"lookup('env', '{name}')" for name in names) + "]"
    root = checkout(one_play(result_job(lookups)))
    secret = "hunter2-in-the-environment"
    login = f"https://user:{secret}@index.invalid/simple"
    _, outcome, told = run(
        root,
        "run",
        AWS_SECRET_ACCESS_KEY=secret,
        ANSIBLE_BECOME_PASS=secret,
        PIP_INDEX_URL=login,
        FACESWAP_ALLOWED="seen",
    )
    assert outcome["job"] == ["", "", "", "seen"]
    assert "PIP_INDEX_URL holds a login, so it is not passed on" in told
    assert files_with(root.parent / "a state", "FACESWAP_ALLOWED"), "the environment of the play is kept"
    assert not files_with(root.parent / "a state", secret)


def test_of_the_clouds_variables_those_without_a_secret_pass() -> None:
    names = {"OCI_CLI_CONFIG_FILE", "OCI_CLI_PROFILE", "OCI_CLI_AUTH"}
    secret = {"OCI_CLI_KEY_CONTENT", "OCI_CLI_PASSPHRASE", "OCI_CLI_KEY_FILE", "OCI_CLI_AUTH_TOKEN"}
    kept, refused = environment.allowed(dict.fromkeys(names | secret, "x"))
    assert kept.keys() - {"PATH"} == names
    assert refused == []


def test_the_environment_is_put_back(checkout: Callable[[str], Path], state: Path) -> None:
    before = dict(os.environ)
    play_here(checkout(one_play("debug: ")), state)
    assert dict(os.environ) == before


def test_inputs_are_private_and_do_not_stay(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout(one_play("stat: {path: '{{ secret_path }}'}"))
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = state / "inputs" / f"20260101T000000-{dead.pid}-x"
    (left / "env").mkdir(parents=True)
    alive = state / "inputs" / f"20260101T000000-{os.getpid()}-x"
    alive.mkdir()
    outcome = play_here(root, state, values={"secret_path": "/hunter2-in-a-value"})
    assert outcome.status == "ok"
    assert list((state / "inputs").iterdir()) == [alive]
    [run_folder] = (state / "runs").iterdir()
    assert "hunter2" not in (run_folder / "command").read_text(), "values must not stand in arguments"
    for folder in (state / "runs", run_folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in root.iterdir()} == {"roles", "plugins", "inventory", "ansible.cfg", "site.yml"}


def test_old_runs_are_removed(checkout: Callable[[str], Path], state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "KEPT_RUNS", 2)
    root = checkout(one_play("debug: "))
    logs = [Path(str(play_here(root, state).log)) for _ in range(3)]
    assert [log.exists() for log in logs] == [False, True, True]


def test_the_runner_does_not_override_ansible_cfg(checkout: Callable[[str], Path], state: Path) -> None:
    settings = "lookup('config', 'HOST_KEY_CHECKING', 'CACHE_PLUGIN', 'CONFIG_FILE')"
    root = checkout(one_play(result_job(settings)))
    root.chmod(0o777)  # ansible passes over an ansible.cfg in a folder that all may write, if only found there
    job: object = play_here(root, state).job
    assert job == [True, "memory", str(root / "ansible.cfg")]


def test_ansible_playbook_is_found_without_an_activated_environment(
    checkout: Callable[[str], Path], state: Path
) -> None:
    kept, _ = environment.allowed({**os.environ, "PATH": "/usr/bin:/bin"})
    assert play(Order(checkout(one_play("debug: "))), Screen(io.StringIO()), kept, state).status == "ok"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_all_of_the_play(checkout: Callable[[str], Path], number: signal.Signals, code: int) -> None:
    root = checkout(HOLD)
    with subprocess.Popen(
        **command(root, "run", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until((root / "held").exists, "the task")
        process.send_signal(number)
        out, told = process.communicate(timeout=30)
    assert process.returncode == code
    assert json.loads(out)["status"] == "cancelled"
    assert f"Stopped by {number.name}." in told
    assert "goes on there" in told
    assert "faceswap-oci stop" in told
    wait_until(lambda: nobody_holds(root / "held"), "the end of the worker and its child", 5)
    assert not list((root.parent / "a state" / "faceswap-oci" / "inputs").iterdir())


def test_the_timeout_ends_all_of_the_play(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout(HOLD)
    outcome = play_here(root, state, timeout=10)
    assert (outcome.status, outcome.exit_code) == ("timeout", 124)
    assert outcome.message is not None
    assert "goes on there" in outcome.message
    assert [phase.name for phase in outcome.phases] == ["Train"]
    wait_until(lambda: nobody_holds(root / "held"), "the end of the worker and its child", 5)


def test_the_signal_handlers_are_put_back(checkout: Callable[[str], Path], state: Path) -> None:
    before = [signal.getsignal(number) for number in player.SIGNALS]
    play_here(checkout(one_play("debug: ")), state)
    assert [signal.getsignal(number) for number in player.SIGNALS] == before


class _Broken(io.StringIO):
    """A screen that nobody reads any more, from a certain text on."""

    def __init__(self, last: str) -> None:
        super().__init__()
        self._last = last

    def write(self, text: str) -> int:
        if self._last in text:
            raise BrokenPipeError
        return super().write(text)


def test_an_exception_while_showing_leaves_no_play_alive(checkout: Callable[[str], Path], state: Path) -> None:
    root = checkout(HOLD)
    outcome = play_here(root, state, Screen(_Broken("2/3"), interval=0))
    assert (outcome.status, outcome.exit_code) == ("error", 5)
    assert "BrokenPipeError" in Path(str(outcome.log)).read_text()
    wait_until(lambda: not (root / "held").exists() or nobody_holds(root / "held"), "the end of the worker", 5)


# --- the living line ---------------------------------------------------------------------------------------


def read_all(master: int) -> Iterator[str]:
    try:
        while data := os.read(master, 4096):
            yield data.decode()
    except OSError:  # Linux says EIO when the other end of a pseudo-terminal is closed
        return


def test_on_a_terminal_one_line_is_refreshed(checkout: Callable[[str], Path]) -> None:
    root = checkout(one_play("{name: Follow the training, follow: {updates: 3}}"))
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with subprocess.Popen(**command(root, "run", TERM="xterm"), stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = "".join(read_all(master))
    os.close(master)
    assert process.returncode == 0
    updates = re.findall(r"\r(  train  \d/3 [.]+)\x1b\[K", shown)
    assert [update[:12] for update in updates] == ["  train  1/3", "  train  2/3", "  train  3/3"]
    assert {len(update) for update in updates} == {39}, "cut to the width, or the terminal would wrap it"
    assert "\r  Follow the training  0:00\x1b[K" in shown
    stays = [line.rpartition("\r\x1b[K")[2].strip("\r") for line in shown.split("\n")]
    assert stays[:3] == ["Train", "  train  3/3 " + "." * 50, ""]


@pytest.mark.parametrize(("interval", "shown"), [(0.0, [1, 2, 3]), (1e9, [3])])
def test_elsewhere_it_is_throttled_but_the_last_line_stays(
    checkout: Callable[[str], Path], state: Path, interval: float, shown: list[int]
) -> None:
    stream = io.StringIO()
    root = checkout(one_play("follow: {updates: 3}"))
    play_here(root, state, Screen(stream, interval))
    assert [int(done) for done in re.findall(r"^  train  (\d)/3", stream.getvalue(), re.M)] == shown
    assert "\r" not in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_without_a_terminal_a_line_comes_every_thirty_seconds() -> None:
    now = 0.0
    stream = io.StringIO()
    screen = Screen(stream, clock=lambda: now)
    for second in range(100):
        now = float(second)
        screen.living(str(second))
    assert stream.getvalue().split() == ["30", "60", "90"]


def test_text_from_a_host_cannot_move_the_cursor() -> None:
    stream = io.StringIO()
    Screen(stream).line("a\x1b[2Jb\rc")
    assert stream.getvalue() == "a [2Jb c\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (100, "1:40"), (3661, "1:01:01")])
def test_durations(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text

"""`ansible-playbook site.yml` as a user plays it, with the real engine and a handful of iterations."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pexpect
import pytest
from PIL import Image
from trust import Trust, what_is_missing

ROOT = Path(__file__).parent.parent
STAGES = ("extract_a", "extract_b", "train", "convert", "release")


@dataclass
class Played:
    """What one run of ansible-playbook said."""

    code: int
    output: str

    @property
    def changed(self) -> list[str]:
        """The names of the tasks that changed something."""
        return [t for t, body in self.tasks if re.search(r"^changed: ", body, re.M)]

    @property
    def ran(self) -> list[str]:
        """The names of the tasks that did something on a host, beside looking at arguments."""
        return [t for t, body in self.tasks if re.search(r"^(ok|changed|fatal|failed): ", body, re.M)]

    @property
    def tasks(self) -> list[tuple[str, str]]:
        """Name and output of each task, without the role's name."""
        parts = re.split(r"^TASK \[(.*)\] \**$", self.output, flags=re.M)[1:]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [(name.rpartition(" : ")[2], body) for name, body in pairs if "Validating arguments" not in name]

    @property
    def recap(self) -> dict[str, int]:
        """The counts of the recap's only host."""
        return {key: int(count) for key, count in re.findall(r"(\w+)=(\d+)", self.output.rpartition("PLAY RECAP")[2])}


class Site:
    """A place of its own for the engine, the job and the results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix: list[str] = []  # words before the command
        self.job = folder / "var" / "jobs" / "demo"
        self.out = folder / "out" / "demo"
        self.values: dict[str, Any] = {
            "faceswap_engine_file": str(folder / "engine" / "engine.json"),
            "faceswap_run_dir": str(folder / "var"),
            "faceswap_run_out": str(folder / "out"),
            "faceswap_run_iterations": 4,
        }

    def play(self, *words: str, playbook: str = "site.yml", **values: Any) -> Played:
        """Play with the demo's inventory; `values` win over the site's own."""
        done = subprocess.run(
            [
                *self.prefix,
                str(Path(sys.executable).parent / "ansible-playbook"),
                playbook,
                "-e",
                json.dumps({**self.values, **values}),
                *words,
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return Played(done.returncode, done.stdout + done.stderr)

    def made(self) -> dict[str, str]:
        """What must never be lost: content of model, faces and results."""
        kept = [self.job / "model", self.job / "superseded", self.job / "faces_a", self.job / "faces_b", self.out]
        files = [file for folder in kept for file in folder.rglob("*") if file.is_file()]
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that was played once, in a folder with a space in its name."""
    made = Site(tmp_path_factory.mktemp("a site"))
    if not what_is_missing():  # else it is nobody's but the test's account
        made.prefix = Trust(made.folder / "signers").prefix
    first = made.play()
    assert first.code == 0, first.output
    assert {path.name for path in made.out.iterdir()} == {
        "demo.mp4",
        "demo.mp4.provenance.json",
        "faces",
        "log.txt",
        "report.html",
    }
    return made


@pytest.fixture
def copy(site: Site, tmp_path: Path) -> Site:
    """The played site's job and results once more, to be spoilt; the engine is shared."""
    made = Site(tmp_path)
    shutil.copytree(site.folder / "var", tmp_path / "var")
    shutil.copytree(site.folder / "out", tmp_path / "out")
    made.values["faceswap_engine_file"] = site.values["faceswap_engine_file"]
    made.prefix = site.prefix  # the log, too, knows what was released
    return made


def clip(path: Path, picture: Any, frames: int = 30) -> Path:
    """Write a video of `frames` pictures, each given by `picture(number)` as RGB, 160 by 160."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 160, "yuv420p"
        for number in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))
        out.mux(stream.encode(None))
    return path


def test_a_second_run_changes_nothing(site: Site) -> None:
    again = site.play()
    assert again.code == 0
    assert again.changed == [] and again.recap["changed"] == 0
    check = site.play("--check", "--diff")
    assert check.code == 0 and check.changed == []


def test_check_mode_on_an_empty_host_survives_and_makes_nothing(tmp_path: Path) -> None:
    empty = Site(tmp_path / "nothing")
    check = empty.play("--check", "--diff")
    assert check.code == 0, check.output
    assert {"Train | Train the model", "Convert | Swap the face in every frame"} <= set(check.changed)
    assert not empty.folder.exists()


TAGS = {
    "plan": "Plan | Look at the sources",
    "nvidia_cuda": "Say what was found",
    "faceswap_install": "Verify | Load the engine, compute with it, and describe it for those who run it",
    "faceswap_run": "Release | Say where it is",
    "extract": "Extract | Extract the faces",
    "train": "Train | Train the model",
    "convert": "Convert | Swap the face in every frame",
    "release": "Release | Label, encode with the source's sound, and report",
    "stop": "Stop | Save and end what runs in the job",
}


def documented_tags() -> set[str]:
    """The tags of the README's table."""
    return set(re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "README.md").read_text(), re.M))


def test_the_readme_documents_the_tags_there_are(site: Site) -> None:
    listed = site.play("--list-tags").output
    there = {tag for row in re.findall(r"TAGS: \[(.*)\]", listed) for tag in re.split(r", ?", row)}
    assert there - {"never", ""} == documented_tags() == {*TAGS, "oci_instance"}


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_a_tag_alone_runs_its_stage(site: Site, tag: str) -> None:
    played = site.play("--tags", tag)
    assert played.code == 0, played.output
    assert TAGS[tag] in played.ran
    others = {name for other, name in TAGS.items() if other not in (tag, "faceswap_run")}
    if tag not in ("faceswap_run", "extract"):  # extract looks at the job first; faceswap_run is four stages
        assert not others & set(played.ran)


def test_the_cloud_stage_wants_to_know_the_compartment_first(site: Site, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("oci: {hosts: {cloud: {}}}\nfaceswap: {hosts: {}}\n")
    for playbook in ("playbooks/oci_instance.yml", "playbooks/destroy.yml"):
        played = site.play("-i", str(inventory), playbook=playbook)
        assert played.code == 2
        assert "missing required arguments: oci_instance_compartment_id" in played.output


def test_destroy_without_a_stack_does_not_look_like_success(site: Site) -> None:
    played = site.play(playbook="playbooks/destroy.yml")
    assert played.code == 2
    assert "No host in the group oci, so nothing was destroyed: use -i inventory/oci." in played.output


def test_the_clouds_inventory_is_complete_but_for_what_only_the_user_knows(tmp_path: Path) -> None:
    """Played as it is in the repository, by someone without a profile: one sentence at each turn, nothing asked."""
    env = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "ANSIBLE_NOCOLOR": "1", "COLUMNS": "400"}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventory/oci", "site.yml"]

    def play(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    code, said = play("--list-tags")
    assert code == 0 and "TAGS: [oci_instance]" in said
    assert f"The OCI configuration file {tmp_path}/.oci/config cannot be read" in said
    code, said = play("--tags", "oci_instance")
    assert code == 2 and "compartment_id is empty: copy the OCID" in said
    code, said = play("--tags", "plan")
    assert code == 2 and "Plan | Look at the sources" in said and "compartment_id is empty" in said


def test_cpu_build_is_said_and_a_required_gpu_is_missed(site: Site) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert "no NVIDIA GPU: CPU build" in site.play("--tags", "nvidia_cuda").output
    missed = site.play("--tags", "nvidia_cuda", nvidia_cuda_required=True)
    assert missed.code == 2
    assert "nvidia_cuda_required is true: use a host with an NVIDIA GPU" in missed.output


def test_only_what_depends_on_a_change_is_done_again(copy: Site) -> None:
    before = copy.made()
    label = copy.play(faceswap_run_label="Made by AI")
    assert label.changed == [
        "Release | Label, encode with the source's sound, and report",
        "Release | Sign it, and let it out",
    ]
    more = copy.play(faceswap_run_label="Made by AI", faceswap_run_iterations=6)
    assert more.changed[0] == "Train | Train the model" and len(more.changed) == 4
    state = json.loads(next((copy.job / "model").glob("*_state.json")).read_text())
    assert state["iterations"] == 6
    after = copy.made()
    assert all(after[path] == digest for path, digest in before.items() if "faces_" in path)


def test_on_a_terminal_one_line_is_refreshed(copy: Site) -> None:
    """While it trains, the terminal gets carriage returns on one line and no line feed in between."""
    values = json.dumps({**copy.values, "faceswap_run_iterations": 40})
    program = str(Path(sys.executable).parent / "ansible-playbook")
    command = [*copy.prefix, program, "site.yml", "--tags", "train", "-e", values]
    terminal = pexpect.spawn(
        command[0],
        command[1:],
        cwd=str(ROOT),
        timeout=300,
        dimensions=(24, 100),
        env={**os.environ, "TERM": "xterm"},
        encoding="utf-8",
    )
    said = terminal.read()
    [line] = [row for row in said.split("\r\n") if "\r\x1b[2Ktrain" in row]
    updates = line.split("\r\x1b[2K")
    assert len(updates) > 3
    assert any(re.fullmatch(r"train  \d+/40  .*loss A \d\.\d+  loss B \d\.\d+.*", update) for update in updates)
    assert all(len(update) < 100 for update in updates[:-1])


def test_without_a_terminal_lines_are_few(copy: Site) -> None:
    played = copy.play("--tags", "train", faceswap_run_iterations=8)
    lines = re.findall(r"^train  \d*.*$", played.output, re.M)
    assert 1 <= len(lines) <= 1 + 300 // 30
    assert "RETRYING" not in played.output and "\r" not in played.output


def test_nothing_swapped_comes_home_but_by_release(copy: Site) -> None:
    shutil.rmtree(copy.folder / "out")
    for tag in ("extract", "train", "convert"):
        assert copy.play("--tags", tag).code == 0
    # Numbers and contact sheets of the sources, for a person to judge before days of training.
    assert [path.name for path in copy.out.iterdir()] == ["faces"]
    assert copy.play("--tags", "release").code == 0
    assert (copy.out / "demo.mp4").exists()


def test_a_role_taken_alone_works(copy: Site, tmp_path: Path) -> None:
    """No inventory of ours, no group, no neutral variable: just the role and its arguments."""
    playbook = tmp_path / "mine.yml"
    playbook.write_text(
        json.dumps(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "vars": {
                        **copy.values,
                        "faceswap_run_job": "demo",
                        "faceswap_run_user": "",
                        "faceswap_run_engine": "builtin",
                        "faceswap_run_engine_file": copy.values["faceswap_engine_file"],
                        "faceswap_run_trainer": "lightweight",
                        "faceswap_run_source_a": str(ROOT / "demo" / "clipA.mp4"),
                        "faceswap_run_source_b": str(ROOT / "demo" / "clipB.mp4"),
                        "faceswap_run_consent_a": str(ROOT / "demo" / "consent" / "a.yml"),
                        "faceswap_run_consent_b": str(ROOT / "demo" / "consent" / "b.yml"),
                        "ansible_python_interpreter": "/usr/bin/python3",
                    },
                    "roles": ["faceswap_run"],
                }
            ]
        )
    )
    played = copy.play("-i", "localhost,", "-c", "local", playbook=str(playbook))
    assert played.code == 0, played.output
    assert "Extract | Extract the faces" in played.ran


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"faceswap_run_source_a": "/nonexistent/a.mp4"}, "Source A is missing: there is no /nonexistent/a.mp4"),
        ({"faceswap_run_source_a": "demo/clipA.mp4"}, "A source is given by a relative path (demo/clipA.mp4, "),
        ({"faceswap_run_source_b": "{{ faceswap_run_source_a }}"}, "Sources A and B are the same"),
        ({"faceswap_run_iterations": 0}, "faceswap_run_iterations is 0, and training needs at least 1"),
        ({"faceswap_run_iterations": -5}, "faceswap_run_iterations is -5, and training needs at least 1"),
        ({"faceswap_run_iterations": "many"}, "faceswap_run_iterations"),
        ({"faceswap_run_batch_size": 0}, "faceswap_run_batch_size is 0"),
        ({"faceswap_run_label": "100% real"}, "faceswap_run_label (100% real) may be read to deny that AI made"),
        ({"faceswap_run_label": "Kein Deepfake"}, "leave out words such as 'not', 'free' and 'real'"),
        (
            {"faceswap_run_label": "  x" * 50, "faceswap_run_label_language": "fr"},
            "The label would be 'Manipulé par IA: x x x",
        ),
        ({"faceswap_run_label": "AI \u751f\u6210 made"}, "faceswap_run_label can hold letters of English"),
        ({"faceswap_run_label_size": 3}, "faceswap_run_label_size is 3, and the label is legible from 4 to 15"),
        ({"faceswap_run_label_opacity": 20}, "faceswap_run_label_opacity is 20, and the label is legible from 60"),
        ({"faceswap_run_label_corner": "middle"}, "value of faceswap_run_label_corner must be one of: top-left"),
        ({"faceswap_run_job": "../up"}, "cannot name a folder"),
        ({"faceswap_install_engine": "deepfake9000"}, "value of faceswap_install_engine must be one of: builtin"),
        ({"faceswap_run_need_mb": 10**9, "faceswap_run_label": "KI-verändert"}, "MB are free in"),
        ({"faceswap_install_need_mb": 10**9, "faceswap_install_dir": "{{ demo_root }}/var/x"}, "free some room"),
        ({"faceswap_install_python": "/usr/bin/no-python"}, "name another Python"),
        ({"faceswap_run_trainer": "gigantic"}, "gigantic"),
        ({"faceswap_run_mask_type": "vgg"}, "vgg"),
    ],
)
def test_bad_values_end_in_one_sentence(copy: Site, values: dict[str, Any], sentence: str) -> None:
    before = copy.made()
    played = copy.play(**values)
    assert played.code != 0
    assert sentence in played.output
    assert set(before.values()) <= set(copy.made().values())  # moved aside is not lost


@pytest.mark.skipif(what_is_missing() is not None, reason=str(what_is_missing()))
def test_bad_sources_end_in_one_sentence_and_lose_nothing(copy: Site, tmp_path: Path) -> None:
    model = {path: digest for path, digest in copy.made().items() if "/model/" in path or "/out/" in path}
    text = tmp_path / "text.mp4"
    text.write_text("This is not a video.")
    noise = np.random.default_rng(1)
    faceless = clip(tmp_path / "faceless.mp4", lambda n: noise.integers(0, 99, (160, 160, 3), np.uint8))
    few = tmp_path / "few"
    few.mkdir()
    with av.open(str(ROOT / "demo" / "clipB.mp4")) as video:
        for number, frame in zip(range(5), video.decode(video=0), strict=False):
            Image.fromarray(frame.to_ndarray(format="rgb24")).save(few / f"{number}.png")
    picture = ROOT / "demo" / "consent" / "b.reference.png"
    trust = Trust(tmp_path / "signers")
    copy.prefix = trust.prefix
    for source, words in ((text, "video"), (faceless, "face"), (few, "25")):
        record = trust.record(source, "b", reference=picture)
        played = copy.play(faceswap_run_source_b=str(source), faceswap_run_consent_b=str(record))
        assert played.code != 0
        message = re.search(r"msg: (.*)|\"msg\": \"(.*)\"|\[ERROR\]: (.*)", played.output)
        assert message and words in played.output, played.output
    now = set(copy.made().values())
    assert set(model.values()) <= now
    back = copy.play()
    assert back.code == 0, back.output
    assert json.loads(next((copy.job / "model").glob("*_state.json")).read_text())["iterations"] == 4


def test_a_half_written_checkpoint_is_told_and_training_goes_back_to_a_whole_one(copy: Site) -> None:
    checkpoint = max((copy.job / "model").glob("*.npz"), key=lambda path: path.stat().st_size)
    half = checkpoint.read_bytes()[: checkpoint.stat().st_size // 2]
    checkpoint.write_bytes(half)
    converted = copy.play("--tags", "convert")
    assert converted.code == 2
    assert checkpoint.name in converted.output
    trained = copy.play("--tags", "train", faceswap_run_iterations=6)
    assert trained.code == 0, trained.output
    assert "The model was broken" in trained.output and "it is back at 4 iterations" in trained.output
    [kept] = (copy.job / "superseded").glob(f"train-broken-*/model/{checkpoint.name}")
    assert kept.read_bytes() == half
    assert copy.play(faceswap_run_iterations=6).code == 0


def test_an_engine_that_does_not_load_is_not_described(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "engine"
    shutil.copytree(ROOT / "engine", broken)
    (broken / "minifaceswap" / "train.py").write_text("raise ImportError('a part is missing')\n")
    here = {"faceswap_install_builtin_source": str(broken), "faceswap_install_dir": str(tmp_path / "site")}
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "venv").symlink_to(site.folder / "engine" / "venv")
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "site.yml", "--tags", "faceswap_install"]
    done = subprocess.run(
        [*command, "-e", json.dumps(here)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2 and "a part is missing" in done.stdout + done.stderr
    assert not (tmp_path / "site" / "engine.json").exists()


def test_stopping_what_never_ran_changes_nothing(tmp_path: Path) -> None:
    played = Site(tmp_path).play("--tags", "stop")
    assert played.code == 0 and played.changed == []


def test_nothing_but_the_roles_own_programs_stops_a_job(tmp_path: Path) -> None:
    site, mine = Site(tmp_path), tmp_path / "mine" / "supervisor.py"
    (site.job / "stages").mkdir(parents=True)
    mine.parent.mkdir()
    mine.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    mine.chmod(0o755)
    played = site.play("--tags", "stop", __faceswap_run_supervisor=str(mine))
    assert played.code == 2 and "are not those of the role faceswap_run" in played.output, played.output
    assert not (tmp_path / "ran").exists()
    played = site.play("--tags", "stop")
    assert played.code == 0, played.output

"""Every command line that faceswap_run can build is one that the engine takes; what it would refuse, the plan says.

Without Faceswap the engine is the contract, data made from Faceswap. The tests marked `upstream` hold both against
the real parser.
"""

import functools
import json
import random
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.faceswap.ops.plugins.filter import faceswap_options, signing_objections
from ansible_collections.faceswap.ops.plugins.filter.faceswap_options import option_objections
from faceswap_contract import COMMANDS, FILE, MOVED, ROOT, Faceswap, ask, contract
from upstream import needs_source, upstream_engine  # noqa: F401 (its name is asked for below)

ROLE = ROOT / "roles" / "faceswap_run"
CONTRACT = json.loads(FILE.read_text())
ENGINES = ("upstream", "builtin")
NOT_OPTIONS: dict[str, dict[str, list[Any]]] = {  # variables that change a command line and are no option of it
    "extract": {"faceswap_run_air_gapped": [True]},
    "train": {
        "faceswap_run_train_settings": [{"global": {"centering": "head"}}],
        "faceswap_run_mixed_precision": [True],
    },
    "convert": {},
}
# What the supervisor adds to a training: where it stands, its settings, the size that fits, all GPUs, a short trial.
SUPERVISORS = ["-C train.ini -b 12 -i 20000", "-d -b 48 -i 1", "-s 1000000 -b 8 -i 20"]


@functools.cache
def role(engine: str) -> dict[str, Any]:
    """The role's own variables, and what a job must give."""
    read = functools.partial(DataLoader().load_from_file, trusted_as_template=True)
    job = {
        "faceswap_run_source_a": "/media/a.mp4",
        "faceswap_run_source_b": "/media/b.MOV",
        "faceswap_run_engine": engine,
    }
    media = {"results": [{"stat": {"exists": True, "checksum": side}} for side in "ab"]}
    demo = {"faceswap_run_trainer": "lightweight"} if engine == "builtin" else {}
    files = [read(str(ROLE / folder / "main.yml")) for folder in ("defaults", "vars")]
    return {**files[0], **files[1], **job, **demo, "__faceswap_run_media": media, "ansible_facts": {}}


def made(name: str, engine: str = "upstream", **given: Any) -> Any:
    """What Ansible makes of a variable of the role, where a user has given these."""
    templar = Templar(loader=DataLoader(), variables={**role(engine), **given})
    for module in (faceswap_options, signing_objections):  # Python has imported the collection, so Ansible cannot
        for short, code in module.FilterModule().filters().items():
            templar._engine.environment.filters[f"faceswap.ops.{short}"] = code
    return templar.template(trust_as_template(f"{{{{ {name} }}}}"))


def words(command: str, engine: str, **given: Any) -> list[str]:
    """The engine's command line, as the stage gets it."""
    line = made(f"__faceswap_run_{command}_arguments + __faceswap_run_{command}_words", engine, **given)
    return [str(word) for word in line]


def values(option: Mapping[str, Any]) -> list[Any]:
    """What a variable behind an option may hold: all choices, or the ends of the range."""
    if "choices" in option:
        return (
            [[], *([choice] for choice in option["choices"]), option["choices"]]
            if option.get("many")
            else option["choices"]
        )
    if option["takes"] == "text":
        return ["45-90", "7-7"] if "--frame-ranges" in option["names"] else ["90", "45,90,135"]
    return [option[key] for key in ("min", "default", "max") if key in option]


def flags(option: Mapping[str, Any]) -> list[list[str]]:
    """Words of an option, as a user may write them."""
    if option["takes"] == "nothing":
        return [[name] for name in option["names"]]
    choices = values(option)
    several = [value if isinstance(value, list) else [value] for value in choices if value != []]
    return [[name, *map(str, value)] for name, value in zip(option["names"] * len(several), several, strict=False)]


def options(command: str, engine: str) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    """Each option of a command, and the role's variable: "" where it leaves no choice, None where it sets none."""
    behind = {**role(engine)["__faceswap_run_options"][command], "-C": ""}  # settings become a file
    for option in CONTRACT["engines"][engine][command]:
        yield option, behind.get(option["names"][0])


def jobs(command: str, engine: str) -> Iterator[dict[str, Any]]:
    """What users may give: each variable with each value, each option as words, and many together."""
    refused = {entry["option"] for entry in CONTRACT["broken"] if entry["command"] in (command, "*")}
    one: dict[str, list[Any]] = dict(NOT_OPTIONS[command]) if engine == "upstream" else {}
    free: list[list[str]] = []
    for option, variable in options(command, engine):
        if variable:
            one[variable] = [value for value in values(option) if value != 0 or option["names"][0] != "-i"]
        elif variable is None and option["names"][0] not in refused and not option.get("deprecated"):
            free += flags(option)
    yield {}
    yield from ({name: value} for name, choices in one.items() for value in choices)
    yield from ({f"faceswap_run_{command}_options": choice} for choice in free)
    chance = random.Random(6)
    for _ in range(30):
        some = {name: chance.choice(choices) for name, choices in one.items() if chance.random() < 0.5}
        if some.get("faceswap_run_air_gapped"):
            some |= {name: "" for name in ("faceswap_run_detector", "faceswap_run_aligner") if name in some}
        several = [word for flag in chance.sample(free, min(3, len(free))) for word in flag]
        yield some | {f"faceswap_run_{command}_options": several}


@functools.cache
def lines(engine: str) -> list[tuple[str, list[str], dict[str, Any]]]:
    """Every command line that is tried: the command, its words, and what was given for it."""
    return [(command, words(command, engine, **job), job) for command in COMMANDS for job in jobs(command, engine)]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engine_takes_each_command_line_that_the_role_can_build(engine: str) -> None:
    tried = lines(engine)
    assert len(tried) > 100
    for command, line, given in tried:
        assert option_objections(line, engine, command) == [], given
        needed = [option["names"] for option, _ in options(command, engine) if option.get("required")]
        assert all(set(names) & set(line) for names in needed), line


@pytest.mark.parametrize("engine", ENGINES)
def test_each_variable_reaches_the_command_line(engine: str) -> None:
    for command in COMMANDS:
        known = {name for option in CONTRACT["engines"]["upstream"][command] for name in option["names"]}
        assert set(role(engine)["__faceswap_run_options"][command]) <= known
        for option, variable in options(command, engine):
            if variable:
                value = values(option)[-1]
                line = words(command, engine, **{variable: value})
                wanted = [str(word) for word in (value if isinstance(value, list) else [value])]
                place = line.index(option["names"][0])
                assert line[place + 1 : place + 1 + len(wanted)] == wanted, variable


def test_the_defaults_are_faceswaps_own() -> None:
    """But for how many iterations, which Faceswap leaves to who watches."""
    for command in COMMANDS:
        for option, variable in options(command, "upstream"):
            if variable and "default" in option and option["names"][0] != "-i":
                mine = made(variable)
                assert mine in ("", []) or str(mine) == str(option["default"]), variable


def test_the_specs_choices_are_the_contracts() -> None:
    spec = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    for command in COMMANDS:
        for option, variable in options(command, "upstream"):
            if variable and "choices" in spec[variable]:
                assert set(spec[variable]["choices"]) == set(option["choices"]), variable


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("trainer", "phase-a", " is 'phase-a', which Faceswap does not know: take phaze-a, or one of "),
        ("batch_size", 500, " is 500, and must be a whole number from 1 to 256: set it so."),
        ("save_interval", 5, " is 5, and must be a whole number from 10 to 1000: set it so."),
        ("snapshot_interval", 200000, " is 200000, and must be a whole number from 0 to 100000: set it so."),
        ("face_size", 100, " is 100, and must be a whole number from 256 to 1024: set it so."),
        ("detector", "mtccn", " is 'mtccn', which Faceswap does not know: take mtcnn, or one of cv2-dnn, "),
        ("maskers", ["vgg"], " is 'vgg', which Faceswap does not know: choose one or more of bisenet-fp, custom, "),
        ("mask_type", "vgg-clear", " is vgg-clear, which the extract stage is not told to make: add vgg-clear to "),
        ("mask_type", "predicted", " is predicted, and the model learns no mask: set learn_mask of section global"),
        ("output_scale", 10, " is 10, and must be a whole number from 25 to 400: set it so."),
        (
            "extract_options",
            "-nm none",
            ": -nm is the workshop's name of an option of extract: set faceswap_run_norm",
        ),
        ("extract_options", "--detecter=fan", ": Faceswap has no option --detecter for extract: perhaps you mean "),
        ("train_options", "-b 8", ": -b of train is set by the role: set faceswap_run_batch_size instead."),
        ("train_options", ["-p"], ": -p of train is refused, as it opens a preview window, and a host has no screen"),
        (
            "train_options",
            "-it 9",
            ": -it is the workshop's name of an option of train: set faceswap_run_iterations ",
        ),
        (
            "convert_options",
            "-al x",
            ": -al is the workshop's name of an option of convert: the role sets it, leave ",
        ),
        ("convert_options", "-k", ": -k of convert is refused, as the frames that it keeps are written broken, with"),
        ("train_settings", {"trainer.loader": {"num_processes": 0}}, ": num_processes of section trainer.loader is"),
        (
            "train_settings",
            {"global": {"mixed_precision": True}},
            ": mixed_precision of section global is set by the",
        ),
        (
            "train_settings",
            {"global.loss": {"mask_type": "unet-dfl"}},
            " has the mask unet-dfl, which the extra",
        ),
    ],
)
def test_the_plan_says_what_faceswap_would_not_take(name: str, value: Any, sentence: str) -> None:
    (said,) = made("__faceswap_run_objections", **{f"faceswap_run_{name}": value})
    assert said.startswith(f"faceswap_run_{name}{sentence}")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("trainer", "villain", " is 'villain', which the built-in engine does not know: choose one of lightweight."),
        ("detector", "s3fd", " is for Faceswap, and the built-in engine has no such option: leave it out."),
        (
            "train_options",
            "-n",
            ": -n of train is for Faceswap, and the built-in engine has no such option: leave it",
        ),
        ("train_settings", {"global": {}}, " is for Faceswap, and the built-in engine has no settings: leave it em"),
    ],
)
def test_the_plan_says_what_the_built_in_engine_would_not_take(name: str, value: Any, sentence: str) -> None:
    (said,) = made("__faceswap_run_objections", "builtin", **{f"faceswap_run_{name}": value})
    assert said.startswith(f"faceswap_run_{name}{sentence}")


def test_a_masker_may_be_given_as_text() -> None:
    """As with -e on the command line."""
    job: dict[str, Any] = {"faceswap_run_maskers": "bisenet-fp", "faceswap_run_mask_type": "bisenet-fp_face"}
    assert made("__faceswap_run_objections", **job) == []


def test_only_faces_that_a_person_left_are_swapped() -> None:
    line = words("convert", "upstream")
    assert line[line.index("-a") + 1] == "faces_a"
    assert "-a" not in words("convert", "builtin")


def test_the_faces_report_is_looked_for_where_it_is_brought() -> None:
    assert made("__faceswap_run_faces_home", faceswap_run_out="out") == f"{Path.cwd()}/out/job/faces"


def test_a_mask_that_extract_makes_may_be_used() -> None:
    loss = {"mask_type": "vgg-clear", "learn_mask": True}
    job: dict[str, Any] = {"faceswap_run_train_settings": {"global.loss": loss}}
    job["faceswap_run_maskers"] = ["bisenet-fp", "vgg-clear"]
    for mask in ("bisenet-fp_head", "vgg-clear", "predicted", "none"):
        assert made("__faceswap_run_objections", **job, faceswap_run_mask_type=mask) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_the_plan_has_nothing_against_a_good_job(engine: str) -> None:
    assert made("__faceswap_run_objections", engine) == []
    masks: dict[str, Any] = {
        "faceswap_run_maskers": ["bisenet-fp", "custom", "unet-dfl", "vgg-clear", "vgg-obstructed"],
        "faceswap_run_train_settings": {"global.loss": {"learn_mask": True}},
    }
    for command in COMMANDS:
        for job in list(jobs(command, engine))[-10:]:  # some with many things together
            job |= masks if engine == "upstream" else {}
            assert made("__faceswap_run_objections", engine, **job) == [], job


def test_the_examples_of_the_documentation_are_good_jobs() -> None:
    specs = [ROOT / "roles" / name / "defaults" / "main.yml" for name in ("faceswap_run", "faceswap_install")]
    known = {"faceswap_engine", "faceswap_run_source_a", "faceswap_run_source_b"}
    known |= {name for path in specs for name in yaml.safe_load(path.read_text())}
    examples = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs" / "faceswap.md").read_text(), re.M | re.S)
    assert len(examples) >= 3
    for job in map(yaml.safe_load, examples):
        assert set(job) <= known
        assert made("__faceswap_run_objections", **job) == []


def test_the_contract_is_the_built_in_engines_own_parser() -> None:
    assert ask(sys.executable, ROOT / "engine" / "faceswap.py", "cpu") == CONTRACT["engines"]["builtin"]


def test_the_contract_is_of_the_commit_that_is_installed() -> None:
    defaults = yaml.safe_load((ROOT / "roles" / "faceswap_install" / "defaults" / "main.yml").read_text())
    assert defaults["faceswap_install_commit"] == CONTRACT["commit"]


@pytest.fixture(scope="module")
def faceswap(upstream_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Faceswap:  # noqa: F811
    return Faceswap(upstream_engine, tmp_path_factory.mktemp("faceswap"))


@pytest.mark.upstream
@needs_source
def test_the_contract_is_the_real_parsers(faceswap: Faceswap) -> None:
    assert contract(faceswap) == CONTRACT


@pytest.mark.upstream
@needs_source
@pytest.mark.parametrize("backend", ["cpu", "nvidia"])
def test_the_real_parser_takes_each_command_line_that_the_role_can_build(faceswap: Faceswap, backend: str) -> None:
    gpu = {"-X", "--exclude-gpus"}
    tried = [line for _, line, _ in lines("upstream") if backend == "nvidia" or not gpu & set(line)]
    training = next(line for line in tried if line[0] == "train")
    tried += [[*training, *more.split()] for more in SUPERVISORS]
    said = faceswap.parse(tried, backend)
    assert [(line, answer) for line, answer in zip(tried, said, strict=True) if answer] == []


@pytest.mark.upstream
@needs_source
def test_the_real_parser_refuses_what_the_contract_refuses(faceswap: Faceswap) -> None:
    """Ranges are Faceswap's recommendation alone, and four of the workshop's options mean something else today."""
    taken = {"-sz", "-een", "-si", "-ps"}
    wrong = [(command, [name, "7"]) for command in COMMANDS for name in MOVED[command]]
    for command in COMMANDS:
        for option, _ in options(command, "upstream"):
            name = option["names"][0]
            if "choices" in option:
                wrong.append((command, [name, "no-such-thing"]))
            elif option["takes"] in ("int", "float") and name != "-X":
                wrong.append((command, [name, "many"]))
            if option["takes"] != "nothing":
                wrong.append((command, [name]))
        wrong += [(command, ["--no-such-option"]), (command, ["stray"])]
    said = faceswap.parse([[*words(command, "upstream"), *bad] for command, bad in wrong], "cpu")
    for (command, bad), answer in zip(wrong, said, strict=True):
        assert option_objections(bad, "upstream", command), bad
        assert bool(answer) is (bad[0] not in taken), (command, bad, answer)

"""What the real Faceswap takes, read from itself: makes plugins/plugin_utils/faceswap_options.json (`make contract`).

Two programs in one file. On the side of the tests it copies an installed Faceswap, plays the other side there with
the engine's Python, and writes the answer. On the other side (`--probe`) it starts Faceswap's own program as a user
would, and stands at the one place where that reads its command line: there the whole parser is at hand, whatever it
was made from. The settings come from the ini files that Faceswap writes at its first start, whose comments tell type,
choices, range and default.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import contextlib
import functools
import inspect
import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "collections/ansible_collections/faceswap/ops/plugins/plugin_utils/faceswap_options.json"
COMMANDS = ("extract", "train", "convert")

# What no parser tells: options that are parsed and then do harm, or what cannot be had without a screen.
BROKEN = [
    {"command": "convert", "option": "-k", "why": "the frames that it keeps are written broken, with exit code 0"},
    {"command": "train", "option": "-p", "why": "it opens a preview window, and a host has no screen"},
    {"command": "train", "option": "-u", "why": "it prints the model's summary and ends without training"},
    {"command": "*", "option": "-G", "why": "it is for Faceswap's own window"},
    {
        "command": "*",
        "option": "KERAS_TORCH_DEVICE",
        "why": "it is an environment variable, and set in capitals it makes Keras crash",
    },
]

# The workshop of 2021 had other names. Today's parser takes some of them for something else: extract's `-si 0` is the
# source `0`, and `-een 1` a picture `1` of a person to leave out.
MOVED = {
    "extract": {"-nm": "-O", "-rf": "-R", "-min": "-m", "-sz": "-z", "-een": "-N", "-si": "-v"},
    "train": {"-bs": "-b", "-it": "-i", "-ss": "-I", "-ps": "", "-ala": "", "-alb": ""},
    "convert": {"-al": "-p", "-osc": "-O"},
}

# Where Faceswap's own ranges, which it recommends and does not enforce, are not what works.
TRUE_RANGES = {
    ("trainer.loader", "num_processes", "min"): 1,  # 0 crashes
    ("global.optimizer", "learning_rate", "max"): 0.001,  # a small model learns with it
}


def the_other_side(script: Path, backend: str) -> argparse.ArgumentParser:
    """The parser with which Faceswap's own program reads its command line; the program goes no further."""
    caught: list[argparse.ArgumentParser] = []

    def stop_here(parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        caught.append(parser)
        raise SystemExit

    if backend == "nvidia":  # GPUs that are there by name alone: the option that leaves some out is told of only then
        sys.modules["pynvml"] = pretended_gpus()
    whole, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, stop_here  # type: ignore[assignment]
    sys.argv, sys.path[0] = [str(script)], str(script.parent)
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(sys.stderr):
        runpy.run_path(str(script), run_name="__main__")
    argparse.ArgumentParser.parse_args = whole  # type: ignore[method-assign]
    return caught[0]


def pretended_gpus() -> types.ModuleType:
    """NVIDIA's library, as far as is needed to count and name two GPUs."""
    library = types.ModuleType("pynvml")
    answers: dict[str, Any] = {
        "nvmlDeviceGetCount": 2,
        "nvmlDeviceGetName": "GPU",
        "nvmlDeviceGetMemoryInfo": types.SimpleNamespace(total=2**34, free=2**34),
        "nvmlSystemGetDriverVersion": "1.0",
    }
    for name in ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetHandleByIndex", *answers):
        setattr(library, name, functools.partial(lambda answer, *_: answer, answers.get(name)))
    for name in ("NVMLError", "NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded", "NVMLError_NoPermission"):
        setattr(library, name, type(name, (Exception,), {}))
    return library


def options_of(parser: argparse.ArgumentParser) -> dict[str, list[dict[str, Any]]]:
    """Every option of the three commands, as data."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {name: [option(action) for action in commands.choices[name]._actions[1:]] for name in COMMANDS}


def option(action: argparse.Action) -> dict[str, Any]:
    """One option: names, what it takes, which values, and its default."""
    entry: dict[str, Any] = {"names": list(action.option_strings)}
    if action.nargs == 0:
        entry["takes"] = "nothing"
    else:
        bounds = inspect.getclosurevars(action.type).nonlocals if inspect.isfunction(action.type) else {}
        low, high = getattr(action, "min_max", (bounds.get("least"), bounds.get("most")))
        entry["takes"] = (
            action.type.__name__ if action.type in (int, float) else "int" if "least" in bounds else "text"
        )
        entry |= {} if low is None else {"min": low}
        entry |= {} if high is None else {"max": high}
        entry |= {"many": True} if action.nargs == "+" else {}
        entry |= {"choices": list(action.choices)} if action.choices else {}
        entry |= {"case": action.type.__name__} if action.type in (str.lower, str.upper) else {}
        entry |= {"default": action.default} if action.default is not None else {}
    if "--exclude-gpus" in action.option_strings:  # which there are is the host's
        entry |= {"takes": "int", "min": 0}
        del entry["choices"], entry["case"]
    entry |= {"required": True} if action.required else {}
    entry |= {"deprecated": True} if action.dest.startswith("depr_") else {}
    entry |= {"hidden": True} if action.help == argparse.SUPPRESS else {}
    return entry


def settings_of(ini: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Sections and settings of an ini file that Faceswap wrote, from its comments."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ini)
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in parser.sections()}
    section, comment = "", ""
    for line in ini.read_text().splitlines():
        if line.startswith("#"):
            comment = comment.removesuffix(" ") if comment.endswith("- ") else comment  # a name broken at its dash
            comment += line.removeprefix("#").strip() + " "
        elif match := re.fullmatch(r"\[(.+)\]", line):
            section, comment = match[1], ""
        elif match := re.match(r"(\w+) =", line):
            found[section][match[1]] = setting(comment, parser[section][match[1]])
            comment = ""
    return found


def setting(comment: str, value: str) -> dict[str, Any]:
    """One setting, from the comment above it and its value, which is the default in a new file."""
    number = r"(-?[\d.]+(?:e-?\d+)?)"
    entry: dict[str, Any]
    if "Choose from: True, False" in comment:
        entry = {"takes": "bool", "default": value == "True"}
    elif match := re.search(rf"Select an? (integer|decimal number) between {number} and {number}", comment):
        kind: type[int] | type[float] = int if match[1] == "integer" else float
        entry = {"takes": kind.__name__, "min": kind(match[2]), "max": kind(match[3]), "default": kind(value)}
    else:
        entry = {"takes": "colour" if re.fullmatch("#[0-9a-f]{6}", value) else "text", "default": value}
        if match := re.search(r"Choose from: (\[.*?\])", comment):
            entry["choices"] = ast.literal_eval(match[1])
        if "If selecting multiple options" in comment:
            entry["many"] = True
    return entry | ({"updatable": True} if "This option can be updated for existing models" in comment else {})


def probe(script: Path, backend: str, lines: list[list[str]] | None) -> Any:
    """On the other side: all options; or what the parser says to each of `lines`, "" where it takes it."""
    parser = the_other_side(script, backend)
    if lines is None:
        return options_of(parser)
    said = []
    for words in lines:
        told = io.StringIO()
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            try:
                parser.parse_args(words)
                said.append("")
            except SystemExit as end:
                said.append(told.getvalue().strip().splitlines()[-1] if told.getvalue() else f"ends with {end.code}")
    return said


class Faceswap:
    """A copy of an installed Faceswap, which writes into its own folder; `engine` is its engine.json."""

    def __init__(self, engine: Path, folder: Path) -> None:
        told = json.loads(engine.read_text())
        self.commit, self._python, self._script = told["version"], told["python"], folder / "faceswap.py"
        made = shutil.ignore_patterns(".git", ".fs_cache", "*.ini", "__pycache__")
        shutil.copytree(told["command"][2], folder, ignore=made, dirs_exist_ok=True)

    def options(self, backend: str) -> Any:
        """All options of the three commands on a backend, cpu or nvidia."""
        return ask(self._python, self._script, backend)

    def parse(self, lines: Sequence[Sequence[str]], backend: str) -> list[str]:
        """What Faceswap's own parser says to each command line; "" where it takes it."""
        answer: list[str] = ask(self._python, self._script, backend, lines)
        return answer

    def settings(self) -> dict[str, Any]:
        """All settings of the three ini files, which the first start wrote."""
        return {command: settings_of(self._script.parent / "config" / f"{command}.ini") for command in COMMANDS}


def ask(python: str, script: Path, backend: str, lines: Sequence[Sequence[str]] | None = None) -> Any:
    """Play the other side, with another Python, on the program `script`."""
    done = subprocess.run(
        [python, __file__, "--probe", str(script), backend],
        input=json.dumps(lines),
        env={**os.environ, "FACESWAP_BACKEND": backend, "KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(f"{script} did not come to its command line: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def contract(faceswap: Faceswap) -> dict[str, Any]:
    """The whole file, as data."""
    cpu, nvidia = faceswap.options("cpu"), faceswap.options("nvidia")
    settings = faceswap.settings()
    for (section, name, bound), value in TRUE_RANGES.items():
        settings["train"][section][name][bound] = value
    return {
        "commit": faceswap.commit,
        "engines": {
            "upstream": {command: list(merged(cpu[command], nvidia[command])) for command in COMMANDS},
            "builtin": ask(sys.executable, ROOT / "engine" / "faceswap.py", "cpu"),
        },
        "moved": MOVED,
        "broken": BROKEN,
        "settings": settings,
    }


def merged(cpu: list[dict[str, Any]], nvidia: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Both backends' options in one list; what the GPU alone has is marked, the CPU's own defaults stand beside."""
    on_cpu = {entry["names"][0]: entry for entry in cpu}
    for entry in nvidia:
        twin = on_cpu.get(entry["names"][0], {"hidden": True})
        if twin.get("hidden") and not entry.pop("hidden", False):
            yield entry | {"backend": "nvidia"}
        else:
            own = twin.get("default")
            yield entry | ({"default_cpu": own} if own != entry.get("default") else {})


def written(data: Any, depth: int = 0) -> str:
    """JSON with one option a line."""
    pad = "  " * (depth + 1)
    flat = json.dumps(data)
    leaf = isinstance(data, dict) and ("takes" in data or "option" in data)
    if leaf or not isinstance(data, dict | list) or not data or (depth > 1 and len(flat) < 90):
        return flat
    if isinstance(data, dict):
        lines = [f"{pad}{json.dumps(key)}: {written(value, depth + 1)}" for key, value in data.items()]
        return "{\n" + ",\n".join(lines) + "\n" + pad[2:] + "}"
    return "[\n" + ",\n".join(pad + written(value, depth + 1) for value in data) + "\n" + pad[2:] + "]"


def main() -> None:
    """Write the file, from an engine that is the real Faceswap."""
    if sys.argv[1:2] == ["--probe"]:
        script, backend = sys.argv[2:]
        print(json.dumps(probe(Path(script), backend, json.load(sys.stdin))))
        return
    if len(sys.argv) != 2:
        raise SystemExit("Name the engine.json of an installed Faceswap: make contract FACESWAP_ENGINE=...")
    with tempfile.TemporaryDirectory() as folder:
        FILE.write_text(written(contract(Faceswap(Path(sys.argv[1]), Path(folder)))) + "\n")


if __name__ == "__main__":
    main()

"""The argument specs are the contract: defaults, README and code must say the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def test_there_are_the_four_roles() -> None:
    assert ROLES == ["faceswap_install", "faceswap_run", "nvidia_cuda", "oci_instance"]


@pytest.mark.parametrize("role", ROLES)
def test_specs_and_defaults_say_the_same(role: str) -> None:
    specs = read(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    defaults = read(ROOT / "roles" / role / "defaults" / "main.yml")
    options: dict[str, Any] = {}
    for entry in specs.values():
        options |= entry["options"]
    assert {name: spec["default"] for name, spec in options.items() if not spec.get("required")} == defaults
    assert all(name.startswith(f"{role}_") for name in options)


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_has_its_tasks(role: str) -> None:
    specs = read(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    for entry in specs:
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").exists()


@pytest.mark.parametrize("role", ROLES)
def test_an_entry_point_specifies_each_variable_that_it_uses(role: str) -> None:
    """`tasks_from: train` alone must be validated just as main is."""
    folder = ROOT / "roles" / role
    specs = read(folder / "meta" / "argument_specs.yml")["argument_specs"]
    private = read(folder / "vars" / "main.yml")
    known = {name for spec in specs.values() for name in spec["options"]}
    for entry, spec in specs.items():
        used, todo = set(), [(folder / "tasks" / f"{entry}.yml").read_text()]
        while todo:
            text = todo.pop()
            for other in known:
                if re.search(rf"\b{other}\b", text):  # not in a longer or a private name
                    used.add(other)
            for name, value in private.items():
                if name in text and name not in used:
                    used.add(name)
                    todo.append(str(value))
            for tasks in (folder / "tasks").glob("*.yml"):
                if f"import_tasks: {tasks.name}" in text:
                    todo.append(tasks.read_text())
            todo += [path.read_text() for path in (folder / "templates").glob("*.j2") if path.stem in text]
        assert used & known == set(spec["options"]), entry


def test_host_key_checking_is_never_off() -> None:
    kinds = ("*.y*ml", "*.py", "*.cfg", "*.toml", "*.sh", "*.j2", "*.md")
    made_by_runs = {"var", "out"}
    paths = [path for kind in kinds for path in ROOT.rglob(kind) if path != Path(__file__).resolve()]
    ours = [
        path
        for path in paths
        if not any(part.startswith(".") or part in made_by_runs for part in path.relative_to(ROOT).parts[:-1])
    ]
    ours += (ROOT / ".config").rglob("*.yml")
    folders = {path.relative_to(ROOT).parts[0] for path in ours}
    assert {"ansible.cfg", ".config", "collections", "emulator", "inventory", "molecule", "roles", "src"} <= folders
    for path in ours:
        text = re.sub(r"[\"' ]", "", path.read_text().lower())
        for off in (
            r"host_key_checking[=:,](false|no\b|0|off)",
            r"stricthostkeychecking[=,](no\b|off|accept-new)",
            r"userknownhostsfile[=,]/dev/null",
        ):
            assert not re.search(off, text), f"{path}: {off}"

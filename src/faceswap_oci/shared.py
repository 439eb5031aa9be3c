"""What the wrapper has in common with the roles and the collection: their own files are used, not copies."""

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def role_module(root: Path, name: str) -> ModuleType:
    """A program of the role faceswap_run as a module, such as `consent.py`; `root` is the checkout."""
    path = root / "roles" / "faceswap_run" / "files" / name
    unique = f"faceswap_run_{path.stem}"
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # dataclasses look there for their own module
    spec.loader.exec_module(module)
    return module


@cache
def collection_module(root: Path, name: str) -> ModuleType:
    """One of the collection's module_utils, such as `audit_log`."""
    folder = str(root / "collections")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"ansible_collections.faceswap.ops.plugins.module_utils.{name}")


def printable(text: str) -> str:
    """A line of somebody else's without what a terminal would obey, or show in another order."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)

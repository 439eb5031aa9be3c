"""What the commands of `faceswap-oci consent` share: the checkout they work with, and the files of a record."""

import datetime
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from faceswap_oci.play import Outcome, UsageError

USES = {"head": "another face on this head", "face": "this face on another head"}
SIDES = {"head": "a", "face": "b"}

Player = Callable[[Mapping[str, Any]], Outcome]  # plays the revocation with these values


@dataclass(frozen=True)
class House:
    """What a command works with: the checkout, the role's `consent.py`, and who plays a revocation."""

    root: Path
    records: ModuleType
    player: Player


def read_record(path: Path, house: House) -> tuple[Any, bytes]:
    """A record and its bytes. Raises UsageError if there is none, ConsentError if it cannot be read."""
    if not path.is_file():
        raise UsageError(f"There is no record {path}: `faceswap-oci consent new` writes one.", house.records.MISSING)
    text = house.records.read_bytes(path)
    return house.records.parse(text, str(path)), text


def sideless(error: Exception, record: Any) -> str:
    """What the role's module says of a record, without the side of a job, where there is no job yet."""
    text = re.sub(r"^The signature of side [AB]'s consent", "The signature of the consent", str(error))
    return re.sub(
        rf"(^The (?:record of )?consent|onsent {re.escape(record.id)}) of side [AB]\b", r"\1", text, count=1
    )


def signature_of(record: Path) -> Path:
    """Where a record's signature lies."""
    return record.with_name(f"{record.name}.sig")


def absolute(path: Path) -> Path:
    """A path that a person typed, made whole."""
    return path.expanduser().absolute()


def same(given: Path | None, path: Path) -> bool:
    """Whether both are one file."""
    return given is not None and path.exists() and given.exists() and given.samefile(path)


def command() -> str:
    """This program as it was called, for a next command that can be copied."""
    typed = sys.argv[0]
    plain = Path(typed).name != "faceswap-oci" or shutil.which("faceswap-oci") == typed
    return "faceswap-oci" if plain else shlex.quote(typed)


def today() -> datetime.date:
    """The day by which records hold: that of UTC."""
    return datetime.datetime.now(datetime.UTC).date()

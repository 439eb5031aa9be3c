#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: trained weights, fetched ahead of the program that would fetch them in the middle of its work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: weights
short_description: Fetch trained weights ahead, each checked against its checksum
version_added: 0.3.0
description:
  - Fetches archives of trained weights and puts their files into a folder, each there whole or not at all.
  - A download that was cut goes on where it stopped, in this run or a later one.
  - What has a known SHA-256 must have it, or is not used. What has none is remembered by the controller at its first
    fetch, with what was in it, once all of that is in place. It must be the same on every host and at any time after.
  - What was checked is recorded beside the files. A file of which there is no such record, or another checksum in it
    than the one that is known, is fetched again.
author:
  - The faceswap-oci maintainers
options:
  path:
    description: Folder for the files. Made where it is not there.
    type: path
    required: true
  link:
    description: Where the program looks for them, a symbolic link to O(path) that is made in a folder that is there.
    type: path
  archives:
    description: What is wanted.
    type: list
    elements: dict
    required: true
    suboptions:
      release:
        description: The release of that archive, a part of its URL.
        type: str
        required: true
      archive:
        description: Name of the archive, without .zip.
        type: str
        required: true
      files:
        description: The files in it.
        type: list
        elements: str
        required: true
  source:
    description:
      - A URL, so that the host fetches C(URL/RELEASE/ARCHIVE.zip), or a folder on the controller with the archives,
        or with the files themselves. C(SHA256SUMS) in the one or the other is believed for what it lists, whatever
        is remembered. A login in a URL is only told to that server.
    type: str
    required: true
  sums:
    description: SHA-256 that are known, by the name of the archive (with .zip) or file.
    type: dict
    default: {}
  state:
    description: File on the controller that remembers sums.
    type: str
    default: ~/.local/state/faceswap-oci/weights.json
attributes:
  check_mode:
    description: Says what is missing, and fetches nothing.
    support: full
  diff_mode:
    description: Names what is fetched.
    support: full
  idempotent:
    description: Files that are there are left alone, and nothing is asked of the network.
    support: full
"""

EXAMPLES = r"""
- name: Fetch the detector's weights
  faceswap.ops.weights:
    path: /opt/faceswap-oci/engine/weights
    source: https://mirror.example/weights
    archives:
      - {release: v11.3, archive: s3fd_torch_v3, files: [s3fd_torch_v3.pth]}
"""

RETURN = r"""
missing:
  description: The archives of which a file was not there.
  returned: success
  type: list
  elements: str
fetched:
  description: SHA-256 of each archive and file that was put in place, by its name.
  returned: success
  type: dict
vouched:
  description: The names of those whose SHA-256 O(sums) or a C(SHA256SUMS) has.
  returned: success
  type: list
  elements: str
"""

import hashlib
import json
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.faceswap.ops.plugins.module_utils.urls import authorization, without_login

RECORD = ".checked.json"
SUMS = "SHA256SUMS"
BLOCK = 1 << 20
TIMEOUT_S = 30
PAUSES_S = (1, 2, 4, 8)  # between tries that brought nothing; any that did starts them anew
NOT_THERE, PAST_THE_END = 404, 416


class WeightsError(Exception):
    """Why there are no weights, said in a sentence."""


def read_sums(text: str) -> dict[str, str]:
    """Return what a SHA256SUMS file lists, by the files' names without their folders.

    >>> read_sums("AB12  v2.3/mtcnn.zip\\n# none\\ncd34 *other.zip\\n")
    {'mtcnn.zip': 'ab12', 'other.zip': 'cd34'}
    """
    rows = [line.split(maxsplit=1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {Path(row[1].strip().lstrip("*")).name: row[0].lower() for row in rows if len(row) == 2}


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            total.update(block)
    return total.hexdigest()


def place(stream: IO[bytes], path: Path, accept: Callable[[Path], object]) -> None:
    """Write all of a stream to a file that is there whole and accepted, or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as new:
            shutil.copyfileobj(stream, new, BLOCK)
            new.flush()
            os.fsync(new.fileno())
        accept(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def open_url(url: str, headers: dict[str, str]) -> Any:
    """Ask for a URL; its login is not told to where that may redirect."""
    request = urllib.request.Request(without_login(url), headers=headers)
    for name, value in authorization(url).items():
        request.add_unredirected_header(name, value)
    return urllib.request.urlopen(request, timeout=TIMEOUT_S)


def download(url: str, part: Path) -> None:
    """Fetch a URL into `part`, from where that ends; WeightsError where it does not come."""
    tries, shown = 0, without_login(url)
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if attempt(url, part, before):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code == PAST_THE_END:  # what is there is no beginning of it
                part.unlink()
                continue
            if error.code < 500:
                raise WeightsError(
                    f"{shown} cannot be had (HTTP {error.code}): see the source of the weights."
                ) from None
            reason = f"HTTP {error.code}"
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if part.exists() and part.stat().st_size > before:
            tries = 0
            continue
        if tries == len(PAUSES_S):
            raise WeightsError(
                f"{shown} cannot be fetched ({reason}): see to this host's network or proxy and run the same again, "
                "which goes on where it stopped, or give a mirror or a folder on the controller."
            )
        time.sleep(PAUSES_S[tries])
        tries += 1


def attempt(url: str, part: Path, start: int) -> bool:
    """Fetch what comes after `start`; return whether that was all."""
    with open_url(url, {"Range": f"bytes={start}-"} if start else {}) as answer:
        if answer.status != 206:
            start = 0  # the server knows no ranges
        length = answer.headers.get("Content-Length")
        with part.open("ab" if start else "wb") as stream:
            while block := answer.read(BLOCK):
                stream.write(block)
            arrived = stream.tell() - start
    return length is None or arrived == int(length)


class Weights:
    """The folder with weights, and where more of them come from."""

    def __init__(self, path: Path, source: str, sums: dict[str, str], remembered: dict[str, str], state: str) -> None:
        self.path = path
        self.source = source.rstrip("/")
        self.sums = {name: value.lower() for name, value in sums.items()}
        self.remembered = remembered
        self.state = state
        self.asked = not is_url(self.source)  # whether the source's own sums are among them
        self.fetched: dict[str, str] = {}
        try:
            self.record: dict[str, str] = dict(json.loads((path / RECORD).read_text()))
        except (FileNotFoundError, ValueError):
            self.record = {}

    def missing(self, archive: dict[str, Any]) -> bool:
        """Tell whether a file of an archive is not there, or was not checked against what is known now."""
        known = {**self.remembered, **self.sums}
        recorded = {name: self.record.get(name) for name in [*archive["files"], f"{archive['archive']}.zip"]}
        return any(not (self.path / name).is_file() or not recorded[name] for name in archive["files"]) or any(
            found and known.get(name, found) != found for name, found in recorded.items()
        )

    def accept(self, path: Path, name: str, found: dict[str, str]) -> None:
        """Add a file's checksum to `found`; WeightsError where another is known, and then the file is removed."""
        if not self.asked:
            self.sums = {**self.sums_of_source(), **self.sums}
            self.asked = True
        found[name] = sha256(path)
        wanted = {**self.remembered, **self.sums}.get(name, found[name])
        if wanted != found[name]:
            path.unlink()
            ours = f"; if it is the right one, remove {name} from {self.state} on the controller"
            raise WeightsError(
                f"{name} from {without_login(self.source)} has the checksum {found[name][:12]}... and should have "
                f"{wanted[:12]}...: it is not used; get it from where it can be trusted"
                f"{'' if name in self.sums else ours}."
            )

    def sums_of_source(self) -> dict[str, str]:
        """Return the sums that a mirror gives; a folder's are known to the controller already."""
        if not is_url(self.source):
            return {}
        try:
            with open_url(f"{self.source}/{SUMS}", {}) as answer:
                return read_sums(answer.read(BLOCK).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return {}
            raise

    def fetch(self, archive: dict[str, Any]) -> None:
        """Get the files of one archive."""
        name = f"{archive['archive']}.zip"
        for file in archive["files"]:  # what is there nevertheless was never checked, or is another
            (self.path / file).unlink(missing_ok=True)
        if is_url(self.source):
            packed = self.path / f".{name}.part"
            download(f"{self.source}/{archive['release']}/{name}", packed)
        else:
            packed = Path(self.source) / name
            if not packed.exists():
                self.take(archive)
                return
        found: dict[str, str] = {}
        self.accept(packed, name, found)
        try:
            with zipfile.ZipFile(packed) as pack:
                for file in archive["files"]:
                    with pack.open(file) as stream:
                        place(stream, self.path / file, partial(self.accept, name=file, found=found))
        except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError) as error:
            raise WeightsError(
                f"{name} from {without_login(self.source)} is no archive with {' and '.join(archive['files'])} "
                f"({error}): it is not used; get it from somewhere else."
            ) from None
        finally:
            packed.unlink(missing_ok=True)
        self.note(found)

    def take(self, archive: dict[str, Any]) -> None:
        """Take the files themselves, where they were brought unpacked."""
        found: dict[str, str] = {}
        for file in archive["files"]:
            brought = Path(self.source) / file
            self.accept(brought, file, found)
            brought.replace(self.path / file)
        self.record.pop(f"{archive['archive']}.zip", None)
        self.note(found)

    def told(self) -> dict[str, Any]:
        """Return what the controller may remember, and of what it need not as somebody vouches for it."""
        return {"fetched": self.fetched, "vouched": sorted(self.fetched.keys() & self.sums.keys())}

    def note(self, found: dict[str, str]) -> None:
        """Record the checksums of what is in place now."""
        self.fetched |= found
        self.record |= found
        text = json.dumps(self.record, indent=4, sort_keys=True) + "\n"
        place(BytesIO(text.encode()), self.path / RECORD, lambda _: None)


def is_url(source: str) -> bool:
    """Tell a URL from a folder."""
    return "://" in source


def leads_to(link: Path, path: Path) -> bool:
    """Tell whether `link` is the link that it should be."""
    return link.is_symlink() and link.readlink() == path


def make_link(link: Path, path: Path) -> None:
    """Make `link` lead to `path`."""
    if link.exists() and not link.is_symlink():
        raise WeightsError(f"{link} is there and is no link to {path}: move it away.")
    temporary = link.with_name(f"{link.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(path)
    temporary.replace(link)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "link": {"type": "path"},
            "archives": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "release": {"type": "str", "required": True},
                    "archive": {"type": "str", "required": True},
                    "files": {"type": "list", "elements": "str", "required": True},
                },
            },
            "source": {"type": "str", "required": True},
            "sums": {"type": "dict", "default": {}},
            # These two are the action plugin's.
            "remembered": {"type": "dict", "default": {}},
            "state": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # a careful host's root would keep it all to itself
    given = module.params
    weights = Weights(Path(given["path"]), given["source"], given["sums"], given["remembered"], given["state"])
    missing = [archive for archive in module.params["archives"] if weights.missing(archive)]
    link = Path(module.params["link"]) if module.params["link"] else None
    relink = link is not None and not leads_to(link, weights.path)
    try:
        if not module.check_mode:
            weights.path.mkdir(parents=True, exist_ok=True)
            for archive in missing:
                weights.fetch(archive)
            if link and relink:
                make_link(link, weights.path)
    except WeightsError as error:
        module.fail_json(msg=str(error), **weights.told())
    except (OSError, HTTPException) as error:
        module.fail_json(
            msg=f"The weights could not be fetched ({error}): see to the room and the network of this host, then run "
            "the same again.",
            **weights.told(),
        )
    names = [archive["archive"] for archive in missing]
    diff = {"prepared": "".join(f"fetch {name}\n" for name in names)}
    module.exit_json(changed=relink or bool(missing), missing=names, diff=diff, **weights.told())


if __name__ == "__main__":
    main()

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
    fetch, with what was in it, and must be the same on every host and at any time after.
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
        or with the files themselves. C(SHA256SUMS) in the one or the other is believed for what it lists.
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
"""

import hashlib
import os
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule

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


def place(stream: IO[bytes], path: Path) -> None:
    """Write all of a stream to a file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as new:
        shutil.copyfileobj(stream, new, BLOCK)
        new.flush()
        os.fsync(new.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)


def download(url: str, part: Path) -> None:
    """Fetch a URL into `part`, from where that ends; WeightsError where it does not come."""
    tries = 0
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
                    f"{url} cannot be had (HTTP {error.code}): see the source of the weights."
                ) from None
            reason = f"HTTP {error.code}"
        except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        if part.exists() and part.stat().st_size > before:
            tries = 0
            continue
        if tries == len(PAUSES_S):
            raise WeightsError(
                f"{url} cannot be fetched ({reason}): see to this host's network or proxy and run the same again, "
                "which goes on where it stopped, or give a mirror or a folder on the controller."
            )
        time.sleep(PAUSES_S[tries])
        tries += 1


def attempt(url: str, part: Path, start: int) -> bool:
    """Fetch what comes after `start`; return whether that was all."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
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

    def __init__(self, path: Path, source: str, sums: dict[str, str]) -> None:
        self.path = path
        self.source = source.rstrip("/")
        self.sums = {name: value.lower() for name, value in sums.items()}
        self.more_sums: dict[str, str] | None = None
        self.fetched: dict[str, str] = {}

    def missing(self, archive: dict[str, Any]) -> bool:
        """Tell whether a file of an archive is not there; a file is there only when it was checked."""
        return not all((self.path / name).is_file() for name in archive["files"])

    def accept(self, path: Path, name: str) -> None:
        """Hold a file against what is known of it; one that is another is removed."""
        found = sha256(path)
        if self.more_sums is None:
            self.more_sums = self.sums_of_source()
        for sums in (self.sums, self.more_sums):
            if sums.get(name, found) != found:
                path.unlink()
                raise WeightsError(
                    f"{name} from {self.source} has the checksum {found[:12]}... and should have "
                    f"{sums[name][:12]}...: it is not used; get it from where it can be trusted."
                )
        self.fetched[name] = found

    def sums_of_source(self) -> dict[str, str]:
        """Return the sums that a mirror gives; a folder's are known to the controller already."""
        if not is_url(self.source):
            return {}
        try:
            with urllib.request.urlopen(f"{self.source}/{SUMS}", timeout=TIMEOUT_S) as answer:
                return read_sums(answer.read(BLOCK).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return {}
            raise

    def fetch(self, archive: dict[str, Any]) -> None:
        """Get the files of one archive."""
        name = f"{archive['archive']}.zip"
        if is_url(self.source):
            packed = self.path / f".{name}.part"
            download(f"{self.source}/{archive['release']}/{name}", packed)
        else:
            packed = Path(self.source) / name
            if not packed.exists():
                self.take(archive)
                return
        self.accept(packed, name)
        try:
            with zipfile.ZipFile(packed) as pack:
                for file in archive["files"]:
                    with pack.open(file) as stream:
                        place(stream, self.path / file)
                    self.accept(self.path / file, file)
        except (zipfile.BadZipFile, KeyError, EOFError) as error:
            raise WeightsError(
                f"{name} from {self.source} is no archive with {' and '.join(archive['files'])} ({error}): it is not "
                "used; get it from somewhere else."
            ) from None
        finally:
            packed.unlink(missing_ok=True)

    def take(self, archive: dict[str, Any]) -> None:
        """Take the files themselves, where they were brought unpacked."""
        for file in archive["files"]:
            brought = Path(self.source) / file
            self.accept(brought, file)
            brought.replace(self.path / file)


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
            "state": {"type": "str", "default": ""},  # for the action plugin
        },
        supports_check_mode=True,
    )
    os.umask(0o022)  # a careful host's root would keep it all to itself
    weights = Weights(Path(module.params["path"]), module.params["source"], module.params["sums"])
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
        module.fail_json(msg=str(error), fetched=weights.fetched)
    except (OSError, HTTPException) as error:
        module.fail_json(
            msg=f"The weights could not be fetched ({error}): see to the room and the network of this host, then run "
            "the same again."
        )
    names = [archive["archive"] for archive in missing]
    diff = {"prepared": "".join(f"fetch {name}\n" for name in names)}
    module.exit_json(changed=relink or bool(missing), missing=names, fetched=weights.fetched, diff=diff)


if __name__ == "__main__":
    main()

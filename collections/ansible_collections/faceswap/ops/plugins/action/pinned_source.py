# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Gets the files of one commit on the controller; `modules/pinned_source.py` says what for."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils.patches import PatchError, patch
from ansible_collections.faceswap.ops.plugins.module_utils.private_files import sync_folder
from ansible_collections.faceswap.ops.plugins.module_utils.urls import without_login

UNFINISHED = ".new-"
URL = re.compile(r"^(\w+://|[^/\s]+@[^/\s]+:|[^/\s.]+\.[^/\s]+:)")  # https://..., git@host:..., host.example:...

ARGUMENTS: dict[str, dict[str, Any]] = {
    "source": {"type": "str", "required": True},
    "commit": {"type": "str", "required": True},
    "holds": {"type": "str", "required": True},
    "patches": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {name: {"type": "str", "required": True} for name in ("file", "pattern", "by")},
    },
    "cache": {"type": "str", "default": "~/.cache/faceswap-oci/sources"},
}


class SourceError(Exception):
    """Why there is no source, said in a sentence."""


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Asks for the commit, where it is not there already."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return `changed` and `path`."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec=ARGUMENTS)
        source: str = spec["source"]
        if not URL.match(source):
            source = self._loader.path_dwim(source)
        try:
            path, made = provide(
                source, spec["commit"], spec["holds"], spec["patches"], Path(spec["cache"]).expanduser()
            )
        except (SourceError, PatchError) as error:
            raise AnsibleActionFail(without_login(str(error))) from None
        except OSError as error:
            raise AnsibleActionFail(
                f"The source could not be kept on the controller ({error}): see to {spec['cache']} there, its rights "
                "and its room."
            ) from None
        return {"changed": made, "path": str(path)}


def provide(source: str, commit: str, holds: str, patches: list[dict[str, str]], cache: Path) -> tuple[Path, bool]:
    """Return the folder with a commit's files, and whether it had to be made.

    `source` is as the module's option, a local one absolute. Raises SourceError, PatchError and OSError.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise SourceError(f"{commit} is no commit: give all 40 hexadecimal digits.")
    mark = hashlib.sha256(json.dumps(patches).encode()).hexdigest()[:8]
    path = cache / (f"{commit}-{mark}" if patches else commit)
    if path.exists():
        return path, False
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        if path.exists():  # for another host, meanwhile
            return path, False
        for left in cache.glob(f"{UNFINISHED}*"):  # by a run that was killed
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=cache, prefix=UNFINISHED) as folder:
            tree = _root(
                _unpack(_archive(source, commit, Path(folder)), commit, Path(folder) / "tree"), holds, source
            )
            patch(tree, patches)
            (tree / ".commit").write_text(f"{commit}\n")
            os.sync()  # some hundred small files; the name must not outlast a loss of power without them
            tree.rename(path)
        sync_folder(cache)
    return path, True


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Wait for others that fill the same cache."""
    with (cache / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _archive(source: str, commit: str, folder: Path) -> Path:
    """Return an archive that holds the commit; made in `folder` where the source is not one itself."""
    if URL.match(source):
        repository = folder / "repository"
        _fetch(source, commit, repository)
    else:
        repository = Path(source)
        if repository.is_file():
            return repository
        if not repository.exists():
            raise SourceError(f"There is no {source} on the controller: see the source's URL, folder or archive.")
        if _git(repository, "rev-parse", "--git-dir").returncode:
            raise SourceError(
                f"{source} is a folder without git's data, so that nobody knows its commit: give a git checkout, an "
                "archive made by `git archive`, or a URL."
            )
    if _git(repository, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise SourceError(
            f"{source} does not have the commit {commit}: fetch it there (`git fetch`), or see whether source and "
            "commit are the right ones."
        )
    archive = folder / "tree.tar"
    made = _git(repository, "archive", "--format=tar", f"--output={archive}", commit)
    if made.returncode:
        raise SourceError(f"git could not pack the commit {commit} of {source}: {_last(made.stderr)}.")
    return archive


def _fetch(url: str, commit: str, repository: Path) -> None:
    """Make a repository that holds the commit and, where the server gives it away alone, nothing else."""
    _git(repository.parent, "init", "--quiet", "--bare", str(repository))
    alone = _git(repository, "fetch", "--quiet", "--depth=1", url, commit)
    if alone.returncode == 0:
        return
    everything = _git(repository, "fetch", "--quiet", url, "+refs/*:refs/*")
    if everything.returncode:
        raise SourceError(
            f"git cannot read {url} ({_last(everything.stderr)}): see the URL and the controller's network, or give "
            "a mirror, a checkout or an archive on the controller."
        )


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder, whoever owns that; it asks nobody for anything, and gives a dead line up."""
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
        "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
        "GIT_HTTP_LOW_SPEED_TIME": "60",
    }
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(name, None)  # a git hook that runs us would have us look elsewhere
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *words]
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    except FileNotFoundError:
        raise SourceError(
            "git is not installed on the controller: install it, or give an archive of the source."
        ) from None


def _last(output: str) -> str:
    """Return git's own reason: its first fatal line, else the last at all."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    fatal = [line.removeprefix("fatal: ") for line in lines if line.startswith("fatal: ")]
    return (fatal or lines[-1:] or ["it gave no reason"])[0].rstrip(".")


def _unpack(archive: Path, commit: str, folder: Path) -> Path:
    """Unpack an archive of just this commit into `folder`."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                _compare(archive, packed.comment.decode("ascii", "replace"), commit)
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed_tar:
                _compare(archive, packed_tar.pax_headers.get("comment", ""), commit)
                _extract(packed_tar, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        raise SourceError(
            f"{archive} is no whole archive: give one that `git archive` made, as .tar, .tar.gz or .zip."
        ) from None
    return folder


def _extract(packed: tarfile.TarFile, folder: Path) -> None:
    """Unpack a tar, if nothing of it would lie elsewhere; tarfile.TarError where something would."""
    if hasattr(tarfile, "data_filter"):
        packed.extractall(folder, filter="data")
        return
    for member in packed:  # Python 3.11.2, Debian 12's, knows no filters
        names = [member.name, *([member.linkname] if member.issym() or member.islnk() else [])]
        kind = member.isfile() or member.isdir() or len(names) == 2
        if not kind or any(name.startswith("/") or ".." in name.split("/") for name in names):
            raise tarfile.TarError(member.name)
    packed.extractall(folder)


def _compare(archive: Path, found: str, commit: str) -> None:
    """Hold what `git archive` wrote into its work against the commit that is wanted."""
    if found == commit:
        return
    what = f"of the commit {found}" if re.fullmatch(r"[0-9a-f]{40}", found) else "without a commit's name"
    raise SourceError(
        f"{archive} is an archive {what}, and the commit {commit} is wanted: make it with `git archive --output=... "
        f"{commit}`, or name its commit."
    )


def _root(folder: Path, holds: str, source: str) -> Path:
    """Return where the source begins: some archives have one folder around it all."""
    for root in (folder, *(sub for sub in folder.iterdir() if sub.is_dir())):
        if (root / holds).is_file():
            return root
    raise SourceError(f"{source} has no {holds}: it is another program's source.")

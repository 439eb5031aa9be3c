# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Signs a released video on the controller and lets it out of quarantine; all of `faceswap.ops.provenance`."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils import audit_log, provenance
from ansible_collections.faceswap.ops.plugins.module_utils.private_files import sync_folder
from ansible_collections.faceswap.ops.plugins.module_utils.provenance import ProvenanceError, sidecar_path
from ansible_collections.faceswap.ops.plugins.module_utils.signing_certificate import (
    CredentialError,
    Credentials,
    credentials,
)
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import (
    RefusedError,
    host_programs,
    role_files,
    role_module,
)

Json = dict[str, Any]

# Of the exit codes.
REVOKED, OTHER_HASH, UNSIGNED = 24, 27, 32
NOT_YET = (20, 30)  # in check mode: what a run would bring or make first
STAYS = "label.json"  # not to leave: the manifest has what it says
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # a file's name: no folder, nothing hidden
DIGEST = re.compile(r"[0-9a-f]{64}")

ARGUMENTS: dict[str, dict[str, Any]] = {
    "supervisor": {"type": "str", "required": True},
    "job_dir": {"type": "str", "required": True},
    "quarantine": {"type": "str", "required": True},
    "dest": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "signing_key": {"type": "str", "default": ""},
    "signing_certificate": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Asks the host what it released, holds the fetched files against it, signs, and moves them out."""

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Return `changed`, `certificate`, `signed_by` and the files; or `consent_code` with the sentence."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec=ARGUMENTS)
        self._host = str((task_vars or {}).get("inventory_hostname", "localhost"))
        job = Path(spec["job_dir"]).name
        self._told: Json = {}
        dry = bool((task_vars or {}).get("ansible_check_mode"))  # the play, of which a task may only look ahead
        try:
            self._programs = host_programs(self, task_vars or {}, spec["supervisor"])
            if self._task.check_mode and not self._remote_file_exists(spec["supervisor"]):
                return {"changed": True, "at_home": False, "msg": "Nothing was released yet."}
            try:
                return self._release(spec)
            except (ProvenanceError, CredentialError) as error:
                raise RefusedError(str(error), UNSIGNED) from None
            except OSError as error:
                raise RefusedError(f"{error}: mend that and run the same command again.", UNSIGNED) from None
        except RefusedError as error:
            if self._task.check_mode and error.code in NOT_YET:
                return {"changed": True, "at_home": False, "msg": str(error)}
            if not dry:
                entry = {"host": self._host, "event": "quarantined", "stage": "release", "job": job}
                with suppress(audit_log.AuditError):
                    audit_log.append({**entry, "code": error.code, "message": str(error), **self._kept(spec)})
            result: Json = error.task_result()
            return result

    def _release(self, spec: Json) -> Json:
        released = self._released(spec)
        quarantine, dest, source = (
            Path(self._loader.path_dwim(spec[name])) for name in ("quarantine", "dest", "source")
        )
        key, certificate = (
            self._loader.path_dwim(spec[name]) if spec[name] else ""
            for name in ("signing_key", "signing_certificate")
        )
        swap = provenance.swap_assertion(released, audit_log.commit())
        if self._task.check_mode:
            # The test certificate may not be there yet, and nothing is made now.
            signer = credentials(key, certificate) if key or certificate else None
            home = at_home(dest, released, swap, signer)
            if not home:
                return {"changed": True, "at_home": False}
            told = home["certificate"]
            return {"changed": False, "at_home": True, "certificate": told["kind"], "signed_by": told["name"]}
        signer = credentials(key, certificate)
        with held(dest):
            home, seconds = at_home(dest, released, swap, signer), None
            if not home:
                home, seconds = publish(quarantine, dest, source, released, swap, signer, self._log(released))
            clear(quarantine, released["files"])
        video = dest / released["video"]
        certificate_said = f"signed with {signer.signer!r}" if signer.is_test else f"signed by {signer.signer}"
        took = "" if seconds is None else f"; signing took {seconds:.2f} s"
        return {
            "changed": seconds is not None,
            "seconds": seconds,
            "at_home": True,
            "certificate": signer.kind,
            "signed_by": signer.signer,
            "video": str(video),
            "sidecar": str(sidecar_path(video)),
            "sha256": home["sha256"],
            "consents": {side: found["id"] for side, found in released["consents"].items()},
            "msg": f"{video.name} is {certificate_said}; `faceswap-oci verify {video}` tells what it says{took}",
        }

    def _released(self, spec: Json) -> Json:
        """What the host says of the released job, which it has verified once more; held against our revocations."""
        told = self._told = checked(self._programs.ask("released", spec["job_dir"]))
        consent = role_module(role_files(self), "consent")
        try:
            revoked = consent.read_revocations().ids
        except consent.ConsentError as error:
            raise RefusedError(str(error), error.code) from None
        for side, found in told["consents"].items():
            if found["id"] in revoked:
                raise RefusedError(
                    f"The consent {found['id']} of side {side.upper()} was revoked on {revoked[found['id']]}: the "
                    "result stays where it is.",
                    REVOKED,
                )
        return told

    def _kept(self, spec: Json) -> Json:
        """What lies in quarantine of whom, for the log of a refusal: it must be found when a consent is revoked."""
        if not self._told:
            return {}
        folder = Path(self._loader.path_dwim(spec["quarantine"]))
        there = {
            str(folder / name): digest for name, digest in self._told["files"].items() if (folder / name).exists()
        }
        return {"consents": self._told["consents"], "outputs": there}

    def _log(self, released: Json) -> Any:
        """What writes the release into the audit log and returns the line's hash."""

        def append(outputs: Mapping[str, str]) -> str:
            try:
                return audit_log.append(
                    {
                        "host": self._host,
                        "event": "released",
                        "stage": "release",
                        "job": Path(released["video"]).stem,
                        "consents": released["consents"],
                        "engine": released["engine"],
                        "inputs": released["sources"],
                        "outputs": dict(outputs),
                        "settings": released.get("settings") or {},
                    }
                )
            except audit_log.AuditError as error:
                raise RefusedError(str(error), UNSIGNED) from None

        return append


def leaving(released: Json) -> dict[str, str]:
    """The files that go home, with their digests on the host."""
    return {name: digest for name, digest in released["files"].items() if name != STAYS}


def checked(told: Json) -> Json:
    """The host's answer, if it is one; its names become files here."""
    try:
        names = [told["video"], *told["files"]]
        digests = [*told["files"].values(), *told["sources"].values()]
        digests += [consent["digest"] for consent in told["consents"].values()]
        sound = (
            all(isinstance(name, str) and PLAIN.fullmatch(name) for name in names)
            and all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in digests)
            and told["video"] in told["files"]
            and told["video"].endswith(".mp4")
            and sidecar_path(Path(told["video"])).name not in told["files"]
            and set(told["consents"]) == set(told["sources"]) == {"a", "b"}
        )
        provenance.swap_assertion(told, "")
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise RefusedError("The host's account of what it released makes no sense: run the release again.", UNSIGNED)
    return told


def at_home(dest: Path, released: Json, swap: Json, signer: Credentials | None) -> Json | None:
    """The side-car of this very result, where it is there whole and signed so; None: it is not.

    `signer` None stands for any test certificate. Any test certificate is as good as another.
    """
    video = dest / released["video"]
    try:
        sidecar = provenance.read_sidecar(video)
        if sidecar is None:
            return None
        certificate, manifest = sidecar["certificate"], sidecar["manifest"]
        is_test = signer is None or signer.is_test
        wanted = provenance.manifest(swap, datetime.datetime.now(datetime.UTC))
        if (certificate["kind"] == "test") != is_test or not provenance.same_content(manifest, wanted):
            return None
        if signer and not is_test and certificate["sha256"] != signer.fingerprint:
            return None
        if sidecar["unsigned_sha256"] != released["files"][released["video"]]:
            return None
        for name, digest in leaving(released).items():
            with provenance.open_file(dest / name) as stream:
                if provenance.digest_of(stream) != (sidecar["sha256"] if name == released["video"] else digest):
                    return None
        with provenance.open_file(video) as stream:
            found = provenance.objection(provenance.read(stream), manifest)
    except (ProvenanceError, OSError, KeyError, TypeError):
        return None  # damaged or gone: it is made again
    return None if found else sidecar


def publish(
    quarantine: Path,
    dest: Path,
    source: Path,
    released: Json,
    swap: Json,
    signer: Credentials,
    log: Any,
) -> tuple[Json, float]:
    """Sign what lies in quarantine and put it at home, the video last; return the side-car, and how long it took.

    The time is that of signing, reading back and validating, in seconds.

    RefusedError, ProvenanceError or OSError where anything is not as the host says: then nothing has left.
    """
    video = dest / released["video"]
    try:
        if provenance.source_digest(source) != released["sources"]["a"]:
            raise RefusedError(
                f"{source} is not the source A that this result was made from, and of which its consent speaks: give "
                "back the file with which the job was made, or run the job anew.",
                OTHER_HASH,
            )
    except FileNotFoundError:
        raise RefusedError(
            f"There is no {source}, which the result names as its source: put it back where faceswap_run_source_a "
            "says.",
            UNSIGNED,
        ) from None
    asked = provenance.manifest(swap, datetime.datetime.now(datetime.UTC))
    parts: list[tuple[Path, Path]] = []  # in the order in which they get their names
    try:
        for name, digest in leaving(released).items():
            final = dest / name
            part = final.with_name(f".{name}.part")
            with opened(quarantine / name) as arrived:
                if provenance.digest_of(arrived) != digest:
                    raise RefusedError(
                        f"{quarantine / name} is not what the host released: it stays in quarantine; run the same "
                        "command again.",
                        UNSIGNED,
                    )
                parts.append((part, final))
                with provenance.new_file(part) as target:
                    if final == video:
                        began = time.perf_counter()
                        provenance.sign(arrived, target, asked, source, signer)
                        target.seek(0)
                        if found := provenance.objection(provenance.read(target), asked):
                            raise RefusedError(
                                f"The signed video did not stand the test: {found}. The result stays in quarantine "
                                f"({quarantine}).",
                                UNSIGNED,
                            )
                        took = time.perf_counter() - began
                        signed = provenance.digest_of(target)
                    else:
                        shutil.copyfileobj(arrived, target)
                    target.flush()
                    os.fsync(target.fileno())
        outputs = {str(dest / name): digest for name, digest in leaving(released).items()}
        audit = log({**outputs, str(video): signed})
        sidecar = provenance.sidecar(signed, released["files"][video.name], asked, signer, audit)
        final = sidecar_path(video)
        part = final.with_name(f".{final.name}.part")
        parts.append((part, final))
        with provenance.new_file(part) as target:
            target.write((json.dumps(sidecar, indent=2, sort_keys=True) + "\n").encode())
            target.flush()
            os.fsync(target.fileno())
        provenance.put(sorted(parts, key=lambda pair: pair[1] == video))
    finally:
        for part, _ in parts:
            part.unlink(missing_ok=True)
    sync_folder(dest)
    return sidecar, round(took, 3)


def clear(quarantine: Path, names: Iterable[str]) -> None:
    """Remove what has left; nothing else, whichever folder was named."""
    for name in names:
        (quarantine / name).unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        quarantine.rmdir()
        quarantine.parent.rmdir()


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A fetched file; RefusedError where it did not come."""
    try:
        with provenance.open_file(path) as stream:
            yield stream
    except FileNotFoundError:
        raise RefusedError(
            f"{path} was not brought home, so nothing could be signed: run the same command again.", UNSIGNED
        ) from None


@contextmanager
def held(dest: Path) -> Iterator[None]:
    """Nobody else publishes to this folder meanwhile."""
    dest.mkdir(parents=True, exist_ok=True)
    handle = os.open(dest, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

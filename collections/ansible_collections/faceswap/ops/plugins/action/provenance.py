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
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.faceswap.ops.plugins.module_utils import audit_log, label_look, provenance
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
from ansible_collections.faceswap.ops.plugins.plugin_utils.inner_transfer import transfer

Json = dict[str, Any]

# Of the exit codes.
MISSING, REVOKED, OTHER_HASH, UNSIGNED = 20, 24, 27, 32
NOT_YET = (20, 30)  # in check mode: what a run would bring or make first
STAYS = "label.json"  # not to leave: the manifest has what it says
BESIDE = {"report.html", "log.txt", STAYS}  # what release writes beside the video
PRIVATE = ".publishing"  # folder in the result's own; a killed run leaves it to the next
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")  # a file's name: no folder, nothing hidden
DIGEST = re.compile(r"[0-9a-f]{64}")
LONGER_S, LONGER = 1.0, 1.05  # what a result may last longer than its source, as containers round

ARGUMENTS: dict[str, dict[str, Any]] = {
    "supervisor": {"type": "str", "required": True},
    "job_dir": {"type": "str", "required": True},
    "quarantine": {"type": "str", "required": True},
    "dest": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "record_a": {"type": "str", "default": ""},
    "record_b": {"type": "str", "default": ""},
    "patience_s": {"type": "int", "default": 120},
    "signing_key": {"type": "str", "default": ""},
    "signing_certificate": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Asks the host what it released, and fetches, signs and moves it out where all that can be seen here agrees.

    Who chooses the host, and what answers there, may be who wants a foreign video signed with others' consents. So
    the host's word counts for what cannot be known here alone: records, source and label are looked at.
    """

    _supports_check_mode = True
    _supports_async = False
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: Json | None = None) -> Json:
        """Return `changed`, `certificate`, `signed_by` and the files; or `consent_code` with the sentence."""
        super().run(tmp, task_vars)
        _, spec = self.validate_argument_spec(argument_spec=ARGUMENTS)
        self._vars = task_vars or {}
        self._host = str(self._vars.get("inventory_hostname", "localhost"))
        self._given: Json = {}  # the consents, by the records that are given here
        self._files, self._patience_s = role_files(self), spec["patience_s"]
        check = self._task.check_mode
        try:
            self._given = self._consents(spec)
            self._programs = host_programs(self, self._vars, spec["supervisor"])
            if check and not self._remote_file_exists(spec["supervisor"]):
                return {"changed": True, "at_home": False, "msg": "Nothing was released yet."}
            try:
                return self._release(spec)
            except (ProvenanceError, CredentialError) as error:
                raise RefusedError(str(error), UNSIGNED) from None
            except OSError as error:
                raise RefusedError(f"{error}: mend that and run the same command again.", UNSIGNED) from None
        except RefusedError as error:
            if check and error.code in NOT_YET and self._given:
                return {"changed": True, "at_home": False, "msg": str(error)}
            self._log_refusal(spec, str(error), error.code)
            result: Json = error.task_result()
            return result
        except AnsibleActionFail as error:
            self._log_refusal(spec, str(error), UNSIGNED)
            raise
        except AnsibleError as error:
            # The user whom an earlier task would have made: nothing of it can be there.
            if check and re.search(r"unknown user|user \S+ does not exist", str(error)):
                return {"changed": True, "at_home": False, "msg": "Nothing was released yet."}
            raise

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
                see_source(source, released, self._consent())
                if lost := self._fetch(spec["job_dir"], quarantine):
                    self._log_refusal(spec, str(lost.get("msg")), UNSIGNED)
                    return lost
                label = role_module(self._files, "release/label")
                home, seconds = publish(quarantine, dest, source, released, swap, signer, label, self._log(released))
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

    def _consent(self) -> Any:
        return role_module(self._files, "consent")

    def _consents(self, spec: Json) -> Json:
        """The consents of both sides by the records that are given here, which must hold today."""
        consent = self._consent()
        for side in "ab":
            if not spec[f"record_{side}"]:
                raise RefusedError(
                    f"There is no consent of side {side.upper()}: name its record in faceswap_run_consent_{side}; "
                    "the result stays where it is.",
                    MISSING,
                )
        try:
            records = (Path(self._loader.path_dwim(spec[f"record_{side}"])) for side in "ab")
            found: Json = consent.pair(*records)
            return found
        except consent.ConsentError as error:
            raise RefusedError(str(error), error.code) from None
        except OSError as error:
            raise RefusedError(f"{error}: mend that and run the same command again.", MISSING) from None

    def _released(self, spec: Json) -> Json:
        """What the host says of the released job, which it has verified once more; held against our own records."""
        told = checked(self._programs.ask("released", spec["job_dir"]))
        consent = self._consent()
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
        for side, given in self._given.items():
            found = told["consents"][side]
            if (found["id"], found["digest"]) != (given.record.id, given.digest):
                raise RefusedError(
                    f"The result was made with the consent {found['id']} of side {side.upper()}, and another record "
                    f"is given here ({given.record.id}): name the one of this job in faceswap_run_consent_{side}.",
                    OTHER_HASH,
                )
            if not given.covers(told["sources"][side]):
                raise RefusedError(
                    f"The consent {given.record.id} of side {side.upper()} is not for the source that the result was "
                    "made from: the result stays where it is; run the job anew with the consented file.",
                    OTHER_HASH,
                )
        return told

    def _fetch(self, job_dir: str, quarantine: Path) -> Json | None:
        """Bring the result into quarantine; return what a task says when the host is lost meanwhile."""
        way = {"src": f"{job_dir}/result", "dest": str(quarantine), "to": "controller", "mirror": True}
        result: Json = transfer(self, self._vars, **way, patience_s=self._patience_s)
        return result if result.get("unreachable") or result.get("failed") else None

    def _log_refusal(self, spec: Json, message: str, code: int) -> None:
        """Write it into the audit log, with what lies here of whom: it must be found when a consent is revoked."""
        if self._task.check_mode:
            return
        folder = Path(self._loader.path_dwim(spec["quarantine"]))
        given = {
            side: {"id": one.record.id, "digest": one.digest, "signer": one.signer}
            for side, one in self._given.items()
        }
        entry: Json = {
            "host": self._host,
            "event": "quarantined",
            "stage": "release",
            "job": Path(spec["job_dir"]).name,
        }
        entry |= {"code": code, "message": message, "consents": given, "outputs": lying(folder)}
        with suppress(audit_log.AuditError):
            audit_log.append(entry)

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
    """The host's answer, if it is one; its names become files here, and are those that release writes."""
    try:
        digests = [*told["files"].values(), *told["sources"].values()]
        digests += [consent["digest"] for consent in told["consents"].values()]
        sound = (
            PLAIN.fullmatch(told["video"])
            and all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in digests)
            and told["video"] in told["files"]
            and told["video"].endswith(".mp4")
            and set(told["files"]) <= {told["video"], *BESIDE}
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

    `signer` None stands for any test certificate. Any test certificate is as good as another. Anybody can write a
    side-car, and a certificate of any name: that it was signed here is what the audit log says.
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
        if not audit_log.has_released(sidecar["audit"], sidecar["sha256"]):
            return None
        for name, digest in leaving(released).items():
            with provenance.open_file(dest / name) as stream:
                if provenance.digest_of(stream) != (sidecar["sha256"] if name == released["video"] else digest):
                    return None
        with provenance.open_file(video) as stream:
            reading = provenance.read(stream)
        if reading is None or reading.is_test != is_test or provenance.objection(reading, manifest):
            return None
    except (ProvenanceError, OSError, KeyError, TypeError):
        return None  # damaged or gone: it is made again
    return sidecar


def see_source(source: Path, released: Json, consent: Any) -> None:
    """RefusedError where the source here is not the one of which the host tells."""
    try:
        if consent.digest_of(source.resolve()) != released["sources"]["a"]:
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
    except consent.ConsentError as error:
        raise RefusedError(str(error), error.code) from None


def see_video(video: Any, path: Path, source: Path, label: Any, told: Json) -> None:
    """RefusedError where an arrived video lacks its label, or cannot be of this source."""
    if found := label_look.objection(video, label, told):
        raise RefusedError(
            f"{path} {found}, so that it is not signed: it stays in quarantine; run the release again.", UNSIGNED
        )
    lasts, least = label_look.seconds(video), None if source.is_dir() else label_look.seconds(source)
    if lasts is not None and least is not None and lasts > max(least * LONGER, least + LONGER_S):
        raise RefusedError(
            f"{path} lasts {lasts:.1f} s, and source A, from which it would be made, {least:.1f} s: it stays in "
            "quarantine; run the job anew.",
            UNSIGNED,
        )


def publish(
    quarantine: Path,
    dest: Path,
    source: Path,
    released: Json,
    swap: Json,
    signer: Credentials,
    label: Any,
    log: Any,
) -> tuple[Json, float]:
    """Sign what lies in quarantine and put it at home, the video last; return the side-car, and how long it took.

    The time is that of signing, reading back and validating, in seconds.

    RefusedError, ProvenanceError or OSError where anything is not as the host says: then nothing has left. Others may
    write in both folders, so all is looked at, signed and read back where they cannot.
    """
    video = dest / released["video"]
    asked = provenance.manifest(swap, datetime.datetime.now(datetime.UTC))
    outputs: dict[str, str] = {}
    with private_folder(dest) as private:
        for name, digest in leaving(released).items():
            with copied(quarantine / name, digest, dest) as arrived, provenance.new_file(name, private) as target:
                if name == video.name:
                    see_video(arrived, quarantine / name, source, label, released["label"])
                    arrived.seek(0)
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
                else:
                    shutil.copyfileobj(arrived, target)
                outputs[str(dest / name)] = provenance.digest_of(target)
                os.fsync(target.fileno())
        signed = outputs[str(video)]
        sidecar = provenance.sidecar(signed, released["files"][video.name], asked, signer, log(outputs))
        beside = sidecar_path(video).name
        with provenance.new_file(beside, private) as target:
            target.write((json.dumps(sidecar, indent=2, sort_keys=True) + "\n").encode())
            target.flush()
            os.fsync(target.fileno())
        names = [*leaving(released), beside]
        provenance.put(sorted(names, key=lambda name: name == video.name), private, dest)
    return sidecar, round(took, 3)


def lying(folder: Path) -> dict[str, str]:
    """The files in a folder with their digests; empty for what cannot be read."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_symlink() or not path.is_dir():
            found[str(path)] = ""
            with suppress(OSError), provenance.open_file(path) as stream:
                found[str(path)] = provenance.digest_of(stream)
    return found


def clear(quarantine: Path, names: Iterable[str]) -> None:
    """Remove what has left; nothing else, whichever folder was named."""
    for name in names:
        (quarantine / name).unlink(missing_ok=True)
    with suppress(OSError):  # something else is in it
        quarantine.rmdir()
        quarantine.parent.rmdir()


@contextmanager
def copied(path: Path, digest: str, folder: Path) -> Iterator[Any]:
    """A copy of a fetched file, which has no name: nobody can open it, and a kill leaves nothing of it.

    RefusedError where the file did not come, or is not of this digest.
    """
    with tempfile.TemporaryFile(dir=folder) as copy:
        try:
            with provenance.open_file(path) as arrived:
                shutil.copyfileobj(arrived, copy)
        except FileNotFoundError:
            raise RefusedError(
                f"{path} was not brought home, so nothing could be signed: run the same command again.", UNSIGNED
            ) from None
        if provenance.digest_of(copy) != digest:
            raise RefusedError(
                f"{path} is not what the host released: it stays in quarantine; run the same command again.", UNSIGNED
            )
        yield copy


@contextmanager
def private_folder(dest: Path) -> Iterator[int]:
    """A handle on an empty folder of our own beside the results, for as long as it takes.

    Who may write in `dest` can put another in its place, but not into what the handle stands for.
    """
    path = dest / PRIVATE
    shutil.rmtree(path, ignore_errors=True)  # of a run that was killed
    path.mkdir(mode=0o700)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        made = os.fstat(handle)
        if made.st_uid != os.geteuid() or made.st_mode & 0o022:
            raise RefusedError(
                f"Others may write in {path}, where the result would be signed: name a folder of your own in "
                "faceswap_run_out, in a file system that keeps owners and rights, and run the same command again.",
                UNSIGNED,
            )
        yield handle
    finally:
        os.close(handle)
        shutil.rmtree(path, ignore_errors=True)


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

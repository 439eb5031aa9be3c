"""What a stage may work on: what the persons on both sides agreed to, and what earlier stages made of it.

`admit` looks at a stage before its command runs, and the supervisor runs none that was not admitted. It takes nothing
on trust that a variable, a job file or another program could have set: which words and files a stage has stands here,
the records are verified, each file that goes in is hashed, and `stages/STAGE/made.json` of the stage before must tell
just these files. `Admission.still_holds` looks again after the command: what was swapped meanwhile, even if it was
swapped back, has left its mark. `Admission.record` then writes this stage's own `made.json`:

    consents   of both sides, id and digest             files     all that was made, by content
    sources    of both sides, by content                inputs, outputs   what went in and came out, by content
    final      whether the end was recorded: a training that was killed has saved since

Standard library only, Python 3.9 or newer.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import consent
from consent import NOT_ALLOWED, OTHER_FILE, SIDES, Consent, ConsentError, Mark
from records import Hashes, Json, NotYetError, StageError, read_json, write_json
from versions import damage, is_part

STAGES = ("extract_a", "extract_b", "train", "convert", "release")
# Nobody but root writes there, or the host is lost anyway.
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/opt/homebrew", "/Library")

# What names files among an engine's options, which the role alone may give, and once. The tests hold it against what
# the engines say of themselves.
PATH_OPTIONS: dict[str, tuple[str, ...]] = {
    "extract": (
        *("-i", "--input-dir", "-o", "--output-dir", "-p", "--alignments", "-b", "--batch-mode"),
        *("-C", "--configfile", "-F", "--logfile", "-n", "--nfilter", "-f", "--filter"),
    ),
    "train": (
        *("-A", "--input-A", "-B", "--input-B", "-m", "--model-dir", "-l", "--load-weights"),
        *("-C", "--configfile", "-F", "--logfile"),
        *("-x", "--timelapse-input-A", "-y", "--timelapse-input-B", "-z", "--timelapse-output"),
    ),
    "convert": (
        *("-i", "--input-dir", "-o", "--output-dir", "-p", "--alignments", "-m", "--model-dir"),
        *("-C", "--configfile", "-F", "--logfile", "-n", "--nfilter", "-f", "--filter"),
        *("-a", "--input-aligned-dir", "-r", "--reference-video"),
    ),
}

SPEC = frozenset(
    {
        "stage",
        "engine_file",
        "script",
        "arguments",
        "neutral_arguments",
        "inputs",
        "outputs",
        "editable",
        "iterations",
    }
    | {"model", "training", "settings", "neutral_settings", "stuck_s", "need_mb"}
)
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
RANGE = re.compile(r"[0-9]+-[0-9]+")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# How the label looks.
RELEASE_WORDS = ("--language", "--corner", "--size", "--opacity")
VERSIONS = "stages/train/checkpoints"
MODELS = ("model", "model.restored", VERSIONS)  # where a training finds one to go on with
REMEDY = "give back what the stage before made, or run that stage again."


class GateError(StageError):
    """Why a stage may not run, with the exit code that tells its kind."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


# -- words -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Which files a stage works on, as its words name them."""

    source: str = ""
    alignments: str = ""
    faces: bool = False  # whether convert swaps only the faces that a person left


class _Words:
    """The words of a stage, which must be those that the role gives."""

    def __init__(self, job: Path, stage: str, spec: Json) -> None:
        self._job, self._stage, self._spec = job, stage, spec

    def refuse(self, why: str) -> GateError:
        return GateError(
            NOT_ALLOWED,
            f"Stage {self._stage} may not run: {' '.join(why.split())}; give it only what faceswap_run gives.",
        )

    def texts(self, key: str) -> list[str]:
        words = self._spec.get(key, [])
        if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
            raise self.refuse(f"its {key} are no list of words")
        return list(words)

    def same(self, what: str, found: object, wanted: object) -> None:
        """See that something is as the role gives it."""
        if found != wanted:
            raise self.refuse(f"its {what} should be {wanted!r} and not {found!r}"[:300])

    def begins(self, words: Sequence[str], wanted: Sequence[str]) -> list[str]:
        """Return what follows the words that must come first."""
        self.same("words", list(words[: len(wanted)]), list(wanted))
        return list(words[len(wanted) :])

    def source(self, words: Sequence[str], at: int, side: str) -> str:
        """Return the source that the words name."""
        name = words[at] if at < len(words) else ""
        if not re.fullmatch(rf"input/{side}(?:\.[^/\n]+)?", name):
            raise self.refuse(f"its source should be input/{side} with the ending of the file, and not {name!r}")
        return name

    def alignments(self, words: Sequence[str], at: int, side: str) -> str:
        """Return the alignments that the words name."""
        name = words[at] if at < len(words) else ""
        if name not in (f"alignments_{side}.json", f"alignments_{side}.fsa"):
            raise self.refuse(f"its alignments should be alignments_{side}.json or .fsa, and not {name!r}")
        return name

    def plain(self, words: Sequence[str], command: str) -> None:
        """See that no word names a file, as an option that takes one or as itself."""
        for word in words:
            name, attached, value = word.partition("=") if word.startswith("--") else ("", "", word)
            if word.startswith("@") or word == "--":
                raise self.refuse(f"{word!r} may not stand among the options")
            if name and any(option.startswith(name) for option in PATH_OPTIONS[command]):  # it may be abbreviated
                raise self.refuse(f"only the role may say {name}")
            if not name and word.startswith("-") and not NUMBER.fullmatch(word):
                if not re.fullmatch(r"-[A-Za-z](?:[0-9][0-9.]*)?", word) or word[:2] in PATH_OPTIONS[command]:
                    raise self.refuse(f"only the role may say {word}")
            elif (attached or not name) and self._names_a_file(value):
                raise self.refuse(f"{value!r} names a file")

    def _names_a_file(self, word: str) -> bool:
        if "/" in word or "~" in word or ".." in word:
            return True
        with contextlib.suppress(OSError, ValueError):  # too long to be a name
            return bool(word) and os.path.lexists(self._job / word)
        return False

    def pairs(self, words: Sequence[str], allowed: Mapping[str, re.Pattern[str]]) -> None:
        """See that options of our own scripts come once each, with values of their kind."""
        if len(words) % 2 or len(set(words[::2])) != len(words) // 2:
            raise self.refuse(f"{' '.join(words)[:200]!r} are no options with a value each")
        for option, value in zip(words[::2], words[1::2]):
            if option not in allowed or not allowed[option].fullmatch(value):
                raise self.refuse(f"{option} {value!r} is nothing that it takes"[:200])

    def settings(self) -> None:
        """See that no setting of the engine names a file."""
        for key in ("settings", "neutral_settings"):
            for section, options in (self._spec.get(key) or {}).items():
                for name, value in options.items() if isinstance(options, dict) else [("", "/")]:
                    text = f"{section} {name} {value}"
                    if re.search(r"[/~\n\r\[\]]|\.\.", text):
                        raise self.refuse(f"the setting {section} {name} names a file ({value!r})"[:200])


def _extract(words: _Words, spec: Json, side: str) -> Shape:
    words.same("script", spec.get("script"), "faces/extract.py")
    said = words.texts("arguments")
    converted = ["--converted"] if side == "a" else []
    rest = words.begins(said, ["--engine", str(spec["engine_file"]), *converted, "--", "extract", "-i"])
    source, alignments = words.source(rest, 0, side), words.alignments(rest, 4, side)
    rest = words.begins(rest, [source, "-o", f"faces_{side}", "-p", alignments])
    words.plain(rest, "extract")
    neutral = words.texts("neutral_arguments")
    own = {
        "--ranges": NUMBER,
        "--report": re.compile(f"faces/{side}"),
        "--least": NUMBER,
        "--most-strangers": NUMBER,
        **({"--frames": RANGE} if side == "a" else {}),
    }
    words.pairs(words.begins(neutral, ["--"]) if neutral else [], own)
    words.same("inputs", words.texts("inputs"), [source])
    words.same("outputs", words.texts("outputs"), [f"faces_{side}", alignments, f"faces/{side}"])
    return Shape(source, alignments)


def _train(words: _Words, spec: Json) -> Shape:
    words.same("script", spec.get("script"), None)
    rest = words.begins(words.texts("arguments"), ["train", "-A", "faces_a", "-B", "faces_b", "-m", "model"])
    words.plain([*rest, *words.texts("neutral_arguments")], "train")
    words.same("inputs", words.texts("inputs"), ["faces_a", "faces_b"])
    words.same("outputs", words.texts("outputs"), ["model"])
    words.same("model", spec.get("model"), "model")
    training = spec.get("training") or {}
    numbers = [spec.get("iterations"), *(training.get(key) for key in training if key != "batch_size")]
    for value in numbers:
        if not isinstance(value, (int, float)):
            raise words.refuse(f"{value!r} is no number of iterations, hours or versions")
    size = str(training.get("batch_size") or "auto")
    if size != "auto" and not size.isdigit():
        raise words.refuse(f"{size!r} is no size of a batch")
    return Shape()


def _convert(words: _Words, spec: Json) -> Shape:
    words.same("script", spec.get("script"), "faces/convert.py")
    rest = words.begins(words.texts("arguments"), ["--engine", str(spec["engine_file"]), "--", "convert", "-i"])
    source, alignments = words.source(rest, 0, "a"), words.alignments(rest, 2, "a")
    rest = words.begins(rest, [source, "-p", alignments, "-o", "quarantine", "-m", "model"])
    faces = alignments.endswith(".fsa")  # Faceswap's
    if faces:
        words.same("words", rest[6:8], ["-a", "faces_a"])
        del rest[6:8]
    words.plain(rest, "convert")
    neutral = words.texts("neutral_arguments")
    words.pairs(words.begins(neutral, ["--"]) if neutral else [], {"--ranges": NUMBER})
    words.same("inputs", words.texts("inputs"), [source, alignments, "model", *(["faces_a"] if faces else [])])
    words.same("outputs", words.texts("outputs"), ["quarantine"])
    return Shape(source, alignments, faces)


def _release(words: _Words, spec: Json) -> Shape:
    words.same("script", spec.get("script"), "release/release.py")
    rest = words.begins(words.texts("arguments"), [".", "--job"])
    source = words.source(rest, 2, "a")
    exact = {"--source": source, "--frames": "quarantine", "--output": "result"}
    own = {
        **{option: re.compile(re.escape(value)) for option, value in exact.items()},
        "--job": WORD,
        "--label": re.compile(r"(?!-)[^\n\r]*"),
        "--fps": re.compile(r"[0-9]+(?:[./][0-9]+)?"),
        "--part": re.compile(rf"(?:{RANGE.pattern})?"),
        "--scale": NUMBER,
        **dict.fromkeys(RELEASE_WORDS, re.compile(rf"(?:{WORD.pattern})?")),
    }
    words.pairs(["--job", *rest], own)
    if set(exact) - set(rest[1::2]):
        raise words.refuse(f"it lacks {', '.join(sorted(set(exact) - set(rest[1::2])))}")
    words.same("neutral words", words.texts("neutral_arguments"), [])
    words.same("inputs", words.texts("inputs"), [source, "quarantine"])
    words.same("outputs", words.texts("outputs"), ["result"])
    return Shape(source)


def see_place(job: Path) -> None:
    """Raise GateError (30) where a folder cannot be a job's: it may have come as a source, or lie in another job.

    A folder of images is brought as it is, and could hold a whole job with records that nobody here has written. When
    a consent is revoked, jobs are looked for in the folders of jobs, and not below their jobs.
    """
    why = ""
    if ".." in job.parts or job.is_symlink():
        why = "its path is not its own"
    for parent in {*job.parents, *job.resolve().parents}:
        if parent.name.casefold() == "input":
            why = f"{parent} is for sources"
        elif any(os.path.lexists(parent / path) for path in ("stages", "consent/a.yml", "consent/b.yml")):
            why = f"it lies in another job, {parent}"
        elif parent.name.casefold() == "jobs" and parent not in (job.parent, job.resolve().parent):
            why = f"its folder lies in {parent}, which is for jobs itself"
    if why:
        raise GateError(NOT_ALLOWED, f"{job} is no job's folder, as {why}: put jobs side by side into one folder.")


def shape_of(job: Path, stage: str, spec: Json) -> Shape:
    """Return which files a stage works on; GateError (30) where its words are not those that the role gives."""
    see_place(job)
    words = _Words(job, stage, spec)
    if stage not in STAGES or spec.get("stage", stage) != stage:
        raise GateError(NOT_ALLOWED, f"There is no stage {stage!r} that may run: the stages are {', '.join(STAGES)}.")
    if set(spec) - SPEC:
        raise words.refuse(f"it knows no {', '.join(sorted(set(spec) - SPEC))}")
    engine_file = spec.get("engine_file")
    if not isinstance(engine_file, str) or not Path(engine_file).is_absolute():
        raise words.refuse(f"its engine's description should be a whole path, and not {engine_file!r}")
    words.settings()
    if stage.startswith("extract_"):
        side = stage[-1]
        words.same("editable", words.texts("editable"), [f"faces_{side}"])
        shape = _extract(words, spec, side)
    else:
        words.same("editable", words.texts("editable"), [])
        shape = {"train": _train, "convert": _convert, "release": _release}[stage](words, spec)
    if stage != "train":
        words.same("model", (spec.get("model"), spec.get("iterations"), spec.get("training") or {}), (None, None, {}))
    return shape


# -- the engine ------------------------------------------------------------------------------------------


def others_may_write(found: os.stat_result) -> bool:
    """Tell whether somebody else than root and the owner of these programs may write to a file or folder.

    Who runs this does not count: where stages have units, the sources that he was brought are his. Who is alone in a
    file's group does, and in a folder such as /tmp each has his own.
    """
    owned = found.st_uid in (0, Path(__file__).stat().st_uid)
    if not owned or stat.S_ISLNK(found.st_mode) or (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return not owned
    return bool(found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _private_group(found)))


def _private_group(found: os.stat_result) -> bool:
    with contextlib.suppress(KeyError):
        owner, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
        return (
            owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name and set(group.gr_mem) <= {owner.pw_name}
        )
    return False


def see_engine(job: Path, path: Path) -> None:
    """Raise GateError (30) where somebody else could have put another engine in the place of the installed one."""
    engine = read_json(path)
    if not engine:
        return  # the supervisor says that there is none
    named = [_words(engine.get(key)) for key in ("command", "python", "detector", "check_model")]
    for words in named:
        if words and not Path(words[0]).is_absolute():
            raise _other_engine(path, f"it runs {words[0]!r}, which is no whole path")
    way: set[Path] = set()
    for place in (path, *(Path(word) for words in named for word in words if Path(word).is_absolute())):
        _add_way(place, way)
    jobs = Path(os.path.realpath(job.parent))
    for step in sorted(way):
        # Without units the sources of other jobs are the login's, as these programs are.
        if step == jobs or step.name.casefold() == "input":
            raise _other_engine(path, f"it lies in {step}, a folder for jobs or their sources")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            is_systems = f"{step}/".startswith(tuple(f"{folder}/" for folder in SYSTEM))
            if not is_systems and others_may_write(os.lstat(step)):
                raise _other_engine(path, f"others than root and who brought the role's programs may write to {step}")


def _add_way(place: Path, way: set[Path]) -> None:
    """Add a path and all that leads to it: the folders above it, and the ways of the links among them."""
    for step in (place, *place.parents):
        step = Path(os.path.realpath(step.parent)) / step.name
        if step not in way:
            way.add(step)
            if step.is_symlink():
                _add_way(step.parent / step.readlink(), way)


def _words(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(word) for word in value or []]


def _other_engine(path: Path, why: str) -> GateError:
    return GateError(
        NOT_ALLOWED,
        f"The engine that {path} describes may not run: {why}; install it by the role faceswap_install, where nobody "
        "else may write.",
    )


# -- files -----------------------------------------------------------------------------------------------


@dataclass
class Look:
    """Hashes files of a job, each through one descriptor and past no link, and marks all that it came by."""

    job: Path
    hashes: Hashes | None = None  # where a file need not be read again that has not changed
    files: dict[str, str] = field(default_factory=dict)
    marks: dict[str, Mark] = field(default_factory=dict)

    def at(self, path: str) -> dict[str, str]:
        """Return the digests of a file, or of all files in a folder, by their paths in the job."""
        self._see_folders(path)
        place = self.job / path
        try:
            found = os.lstat(place)
        except FileNotFoundError:
            raise NotYetError(f"{place} is missing: run the stage that makes it first.") from None
        names = [path]
        if stat.S_ISDIR(found.st_mode):
            before = dict(self._folders(path))
            names = [f"{path}/{name}" for name in consent.files_in(place)]
            digests = {name: self._hash(name) for name in names}
            self.marks.update(before)
        else:
            digests = {path: self._hash(path)}
        self.files.update(digests)
        return digests

    def digest(self, path: str) -> str:
        """Return the digest of a file or folder, as consent.digest_of does."""
        found = self.at(path)
        if path in found:
            return found[path]
        return consent.folder_digest({name[len(path) + 1 :]: sha256 for name, sha256 in found.items()})

    def _hash(self, path: str) -> str:
        place = self.job / path
        if self.hashes is None:
            digest, self.marks[path] = consent.hash_file(place)
            return digest
        found = os.lstat(place)
        if not stat.S_ISREG(found.st_mode):
            raise _linked(place)
        self.marks[path] = consent.mark_of(found)
        return self.hashes.file(place)

    def _see_folders(self, path: str) -> None:
        """See that the folders on the way to a file are folders, and mark them."""
        for parent in [*Path(path).parents][-2::-1]:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(self.job / parent)
                if not stat.S_ISDIR(found.st_mode):
                    raise _linked(self.job / parent)
                self.marks[str(parent)] = consent.mark_of(found)

    def _folders(self, path: str) -> Iterator[tuple[str, Mark]]:
        yield path, consent.mark_of(os.lstat(self.job / path))
        with os.scandir(self.job / path) as entries:
            below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        for name in below:
            yield from self._folders(f"{path}/{name}")


def _linked(path: Path) -> GateError:
    return GateError(NOT_ALLOWED, f"{path} is a link, or not what it should be: put the file or folder itself there.")


def _not_made(path: Path, stage: str, why: str) -> GateError:
    return GateError(NOT_ALLOWED, f"{path} is not what stage {stage} made ({why}): {REMEDY}")


def made_by(job: Path, stage: str) -> Json:
    """Return the record of what a stage made; GateError (30) without one."""
    path = f"stages/{stage}/made.json"
    Look(job)._see_folders(path)
    if (job / path).is_symlink():
        raise _linked(job / path)
    made = read_json(job / path)
    if not all(isinstance(made.get(key), dict) for key in ("consents", "sources", "files")):
        raise GateError(NOT_ALLOWED, f"There is no record of what stage {stage} made ({job / path}): run it first.")
    return made


def _see_made(job: Path, made: Json, stage: str, found: Mapping[str, str], path: str, all_of_it: bool) -> None:
    """Raise GateError (30) where files of `path` are others than a stage made, or fewer where it must be all."""
    files = {name: sha256 for name, sha256 in made["files"].items() if name == path or name.startswith(f"{path}/")}
    for name, sha256 in found.items():
        if name not in files:
            raise _not_made(job / name, stage, "it made no such file")
        if files[name] != sha256:
            raise _not_made(job / name, stage, "its content is another")
    gone = sorted(set(files) - set(found))
    if gone and all_of_it:
        raise _not_made(job / path, stage, f"{gone[0]} is gone")


# -- consent ---------------------------------------------------------------------------------------------


def revocations_of(job: Path) -> consent.Revocations:
    """Return what is revoked by the trust folder's list, or by one that came with an order for this job."""
    known = consent.read_revocations()
    with contextlib.suppress(ConsentError, OSError, ValueError):
        text, signature = (consent.read_bytes(job / name) for name in ("revoked.yml", "revoked.yml.sig"))
        own = consent.verified_revocations(text, signature)
        known = consent.Revocations(max(known.serial, own.serial), {**own.ids, **known.ids})
    return known


def take_revocations(job: Path, text: str, signature: str) -> None:
    """Keep a list of revocations that came with an order, if it is newer; GateError (29) if it is not trusted."""
    content = {"revoked.yml.sig": signature.encode(), "revoked.yml": text.encode()}
    try:
        try:
            consent.keep_revocations(content["revoked.yml"], content["revoked.yml.sig"])
        except OSError:  # the trust folder is root's alone; what is signed may lie anywhere
            offered, kept = consent.parse_revocations(content["revoked.yml"]), revocations_of(job)
            consent.see_that_none_is_lost(kept, offered)
            if offered.serial > kept.serial:
                job.mkdir(parents=True, exist_ok=True)
                for name, part in content.items():
                    (job / f"{name}.new").write_bytes(part)
                    (job / f"{name}.new").replace(job / name)
    except ConsentError as error:
        raise GateError(error.code, str(error)) from None


def consents_of(job: Path) -> dict[str, Consent]:
    """Return the consents of a job's two sides; GateError where one does not hold."""
    see_place(job)
    folder = job / "consent"
    try:
        Look(job)._see_folders("consent/a.yml")
        for side in SIDES:
            for name in (f"{side}.yml", f"{side}.yml.sig"):
                if os.path.lexists(folder / name) and not stat.S_ISREG(os.lstat(folder / name).st_mode):
                    raise _linked(folder / name)
        found = consent.pair(folder / "a.yml", folder / "b.yml", revocations=revocations_of(job))
        for side, one in found.items():
            pictures = sorted(path.name for path in folder.iterdir() if path.name.startswith(f"{side}.reference"))
            if pictures != [one.reference.name]:
                raise GateError(
                    NOT_ALLOWED,
                    f"{folder} should hold one picture of side {side.upper()}, the one of its record, and has "
                    f"{', '.join(pictures) or 'none'}: leave {side}.reference{one.reference.suffix} alone there.",
                )
    except ConsentError as error:
        raise GateError(error.code, str(error)) from None
    return found


def _see_covered(consents: Mapping[str, Consent], sources: Mapping[str, str], what: str) -> None:
    """Raise GateError (27) where something was made of a source that no consent of today covers."""
    for side in SIDES:
        one = consents[side]
        if side in sources and not one.covers(sources[side]):
            raise GateError(
                OTHER_FILE,
                f"Consent {one.record.id} of side {side.upper()} does not cover the source that {what} was made of: "
                f"it is for {', '.join(item.name for item in one.record.sources)}; make {what} of that anew, or have "
                "the record renewed.",
            )


# -- a stage ---------------------------------------------------------------------------------------------


@dataclass
class Admission:
    """A stage that may run: on whose consent, made of which sources, with which files."""

    job: Path
    stage: str
    consents: dict[str, Consent]
    sources: dict[str, str]
    inputs: dict[str, str]
    look: Look
    model: Json | None = None
    seen: dict[str, Mark] = field(default_factory=dict)
    strange: bool = False  # whether a face was seen that is none of those that went in

    def about_consents(self) -> Json:
        """Return what is kept of the consents."""
        return {
            side: {"id": one.record.id, "digest": one.digest, "signer": one.signer}
            for side, one in self.consents.items()
        }

    def still_holds(self) -> None:
        """Raise GateError (30) where a file that went in, or a folder on the way to it, is not what it was.

        Who only weeds out faces while they are trained on spoils nothing.
        """
        weeded = {path for path in self.look.files if self._is_weeded_out(path)}
        for path, mark in self.look.marks.items():
            try:
                same = consent.mark_of(os.lstat(self.job / path)) == mark
            except OSError:
                same = path in weeded
            if not same and not self._only_lacks(path, weeded):
                raise GateError(
                    NOT_ALLOWED,
                    f"{self.job / path} was changed while stage {self.stage} worked with it, so that what it made "
                    "does not count: leave the job's files alone meanwhile, and run it again.",
                )

    def _is_weeded_out(self, path: str) -> bool:
        return self.stage == "train" and not os.path.lexists(self.job / path)

    def _only_lacks(self, path: str, weeded: Collection[str]) -> bool:
        """Tell whether a folder of faces differs in nothing but that some are gone; the others are looked at, too."""
        if self.stage != "train" or not any(name.startswith(f"{path}/") for name in weeded):
            return False
        return not self.strange and self._has_no_other(path)

    def _has_no_other(self, path: str) -> bool:
        try:
            there = {f"{path}/{name}" for name in consent.files_in(self.job / path)}
        except (ConsentError, OSError):
            return False
        return there <= set(self.look.files)

    def look_again(self) -> None:
        """Look, while it is trained, whether faces come that were not there: they could be gone again at the end."""
        for path in self.inputs:
            with contextlib.suppress(OSError):
                mark = consent.mark_of(os.lstat(self.job / path))
                if mark != self.seen.get(path, self.look.marks.get(path)):
                    self.seen[path] = mark
                    self.strange = self.strange or not self._has_no_other(path)

    def begin(self) -> None:
        """Write down that a training begins, or goes on: what it saves until its end is its own."""
        path = self.job / "stages" / self.stage / "made.json"
        files = read_json(path).get("files", {})
        write_json(path, {**self._about(), "files": files, "final": False})

    def record(self, outputs: Sequence[str]) -> Json:
        """Write down what the stage made, file by file; return it by output."""
        look = Look(self.job)
        digests = {path: look.digest(path) for path in outputs if os.path.lexists(self.job / path)}
        if self.stage == "train" and (self.job / VERSIONS).is_dir():
            look.at(VERSIONS)  # one of them may take the model's place
        made = {**self._about(), "files": look.files, "final": True, "outputs": digests}
        if self.model:
            made["model"] = self.model
        write_json(self.job / "stages" / self.stage / "made.json", made)
        return digests

    def _about(self) -> Json:
        return {"consents": self.about_consents(), "sources": self.sources, "inputs": self.inputs}


def pictures_of(job: Path, stage: str) -> dict[str, Path]:
    """Return the reference picture with which a stage compares faces, by its path in the job."""
    found = job.glob(f"consent/{stage[-1]}.reference.*") if stage.startswith("extract_") else ()
    return {f"consent/{path.name}": path for path in found}


def admit(job: Path, stage: str, spec: Json, hashes: Hashes | None = None, begun_anew: bool = False) -> Admission:
    """Return on what a stage may work; GateError where it may not. Without `hashes` every file is read.

    A model that is there does not count where one will be `begun_anew`.
    """
    shape = shape_of(job, stage, spec)
    see_engine(job, Path(spec["engine_file"]))
    try:
        _see_outputs(job, stage, spec)
        consents = consents_of(job)
        admission = Admission(job, stage, consents, {}, {}, Look(job, hashes))
        _admit_files(admission, shape, begun_anew)
    except ConsentError as error:
        raise GateError(error.code, str(error)) from None
    except FileNotFoundError as error:
        raise GateError(
            NOT_ALLOWED, f"{error.filename} went away while stage {stage} was looked at: leave the job's files alone."
        ) from None
    return admission


def _admit_files(admission: Admission, shape: Shape, begun_anew: bool = False) -> None:
    if admission.stage.startswith("extract_"):
        _admit_extract(admission, shape)
    elif admission.stage == "train":
        _admit_train(admission, begun_anew)
    else:
        {"convert": _admit_convert, "release": _admit_release}[admission.stage](admission, shape)


def _see_outputs(job: Path, stage: str, spec: Json) -> None:
    """Raise GateError (30) where what the stage writes would go through a link."""
    for path in [*spec["outputs"], f"stages/{stage}/made.json", f"{stage}.ini"]:
        Look(job)._see_folders(path)
        if (job / path).is_symlink():
            raise _linked(job / path)


def _admit_extract(admission: Admission, shape: Shape) -> None:
    side = admission.stage[-1]
    digest = admission.look.digest(shape.source)
    one = admission.consents[side]
    consent.see_that_it_covers(one, side, digest, admission.job / shape.source)
    admission.sources[side] = admission.inputs[shape.source] = digest
    # Faces are compared with it.
    path = f"consent/{one.reference.name}"
    sha256, admission.look.marks[path] = consent.hash_file(admission.job / path)
    if sha256 != one.record.reference.sha256:
        raise _linked(admission.job / path)


def _take(admission: Admission, made: Json, stage: str, path: str, all_of_it: bool) -> None:
    """Take what a stage made as an input."""
    look = admission.look
    before = set(look.files)
    admission.inputs[path] = look.digest(path)
    found = {name: sha256 for name, sha256 in look.files.items() if name not in before}
    _see_made(admission.job, made, stage, found, path, all_of_it)


def has_unknown_model(job: Path, stage: str) -> bool:
    """Tell whether a training would go on with a model of which there is no record, as of an earlier version."""
    if stage != "train" or os.path.lexists(job / "stages/train/made.json"):
        return False
    return any(place.is_symlink() or (place.is_dir() and any(place.iterdir())) for place in map(job.joinpath, MODELS))


def _admit_train(admission: Admission, begun_anew: bool) -> None:
    job = admission.job
    for side in SIDES:
        made = made_by(job, f"extract_{side}")
        _see_covered(admission.consents, {side: made["sources"].get(side, "")}, f"faces_{side}")
        _take(admission, made, f"extract_{side}", f"faces_{side}", all_of_it=False)
        admission.sources[side] = made["sources"][side]
    if begun_anew:
        return
    # A model goes on only if it was begun here. What it has saved since a kill is its own, after a recorded end not.
    if has_unknown_model(job, "train"):
        raise GateError(
            NOT_ALLOWED,
            f"{job / 'model'} was not trained here, as there is no record of it: run the stage train again, which "
            "sets it aside.",
        )
    there = [path for path in MODELS if os.path.lexists(job / path)]
    for path in there:
        if (job / path).is_symlink():
            raise _linked(job / path)
    if not any(next(consent.files_in(job / path), None) for path in there if (job / path).is_dir()):
        return
    made = made_by(job, "train")
    _see_covered(admission.consents, made["sources"], "the model")
    if made.get("final"):
        for path in there:
            look = Look(job, admission.look.hashes)  # no marks: it changes while it is trained
            look.digest(path)
            found = look.files
            if path == "model" and damage(job / path):
                # It is not used: a version is put back, the engine's own backup in it, or a new one begun.
                found = {name: sha256 for name, sha256 in found.items() if not is_part(Path(name).name)}
            _see_made(job, made, "train", found, path, all_of_it=False)


def _admit_convert(admission: Admission, shape: Shape) -> None:
    job, look = admission.job, admission.look
    digest = look.digest(shape.source)
    consent.see_that_it_covers(admission.consents["a"], "a", digest, job / shape.source)
    admission.inputs[shape.source] = digest
    extracted, trained = made_by(job, "extract_a"), made_by(job, "train")
    if extracted["sources"].get("a") != digest:
        raise GateError(
            NOT_ALLOWED,
            f"{job / shape.source} is not the source whose faces were extracted: run the stage extract again.",
        )
    _see_covered(admission.consents, {side: trained["sources"].get(side, "") for side in SIDES}, "the model")
    _take(admission, extracted, "extract_a", shape.alignments, all_of_it=True)
    if not trained.get("final"):
        raise GateError(
            NOT_ALLOWED, f"The end of stage train was not recorded, as it was killed ({job}): run it again first."
        )
    _take(admission, trained, "train", "model", all_of_it=True)
    if shape.faces:
        _take(admission, extracted, "extract_a", "faces_a", all_of_it=False)
    admission.sources.update(a=digest, b=trained["sources"]["b"])
    state = read_json(job / "stages/train/state.json")
    admission.model = {"digest": admission.inputs["model"], "iterations": state.get("iterations")}


def _admit_release(admission: Admission, shape: Shape) -> None:
    job, look = admission.job, admission.look
    digest = look.digest(shape.source)
    consent.see_that_it_covers(admission.consents["a"], "a", digest, job / shape.source)
    made = made_by(job, "convert")
    _see_covered(admission.consents, {side: made["sources"].get(side, "") for side in SIDES}, "the swap")
    if made["sources"]["a"] != digest:
        raise GateError(
            NOT_ALLOWED, f"{job / shape.source} is not the source that was converted: run the stage convert again."
        )
    admission.inputs[shape.source] = digest
    _take(admission, made, "convert", "quarantine", all_of_it=True)
    admission.sources.update(made["sources"])
    admission.model = made.get("model")


def unrecorded(job: Path, stage: str, hashes: Hashes) -> str | None:
    """Return why a stage that has nothing left to do must be run for its record's sake, None if it need not."""
    made = read_json(job / "stages" / stage / "made.json")
    if not made.get("final"):
        return "what it made was not recorded"
    if stage == "train":
        with contextlib.suppress(ConsentError, StageError, OSError):
            look = Look(job, hashes)
            if look.digest("model") == made.get("outputs", {}).get("model"):
                return None
        return "the model was changed by hand"
    return None


def released(job: Path) -> Json:
    """Return what is to be signed for a job's result; GateError where the consents do not hold, or it is another."""
    if job.parent.name != "jobs" or not WORD.fullmatch(job.name):
        raise GateError(
            NOT_ALLOWED, f"{job} is no job of the role, whose jobs lie in a folder `jobs`: name one there."
        )
    try:
        consents = consents_of(job)
        made = made_by(job, "release")
        look = Look(job)
        look.digest("result")
    except ConsentError as error:
        raise GateError(error.code, str(error)) from None
    _see_made(job, made, "release", look.files, "result", all_of_it=True)
    _see_covered(consents, {side: made["sources"].get(side, "") for side in SIDES}, "the result")
    files = {name[len("result/") :]: sha256 for name, sha256 in look.files.items()}
    specs = {stage: read_json(job / "stages" / stage / "spec.json") for stage in STAGES}
    job_words = specs["release"].get("arguments", [])
    name = dict(zip(job_words[1::2], job_words[2::2])).get("--job", job.name)
    return {
        "video": f"{name}.mp4",
        "files": files,
        "consents": Admission(job, "release", consents, {}, {}, look).about_consents(),
        "sources": made["sources"],
        "engine": read_json(job / "stages/convert/state.json").get("engine", {}),
        "model": made.get("model") or {},
        "label": read_json(job / "result/label.json"),
        "settings": {stage: _said(specs[stage]) for stage in STAGES[:-1]},
    }


def _said(spec: Json) -> Json:
    """Return what the engine was told, without paths of this host."""
    words = spec.get("arguments", [])
    told: Json = {"arguments": words[words.index("--") + 1 :] if "--" in words else words}
    return {**told, **{key: spec[key] for key in ("settings", "iterations") if spec.get(key)}}


# What each script works on, by the name of the role's own path for it.
BY_HAND = {
    "extract": {"faces": "faces_{side}", "alignments": "alignments_{side}"},
    "convert": {"alignments": "alignments_a", "output": "quarantine", "model": "model", "faces": "faces_a"},
    "release": {"frames": "quarantine", "output": "result"},
}


def admit_by_hand(command: str, source: Path, words: Sequence[str] = (), **paths: Path | None) -> None:
    """See that a script works on what its stage may, also where no supervisor runs it; GateError otherwise.

    `source` is `input/a*` or `input/b*` of a job's folder, `paths` are the script's others as BY_HAND names them, and
    `words` go on to the engine. All is read afresh: the records of hashes in a job's folder are anybody's to write.
    """
    source = Path.cwd() / source
    job, side = source.parent.parent, source.name[:1]
    if source.parent.name != "input" or not re.fullmatch(r"[ab](?:\..+)?", source.name):
        raise GateError(
            NOT_ALLOWED, f"{source} is no source of a job: put it into the job's folder, as input/a or input/b."
        )
    stage = f"extract_{side}" if command == "extract" else command
    for name, wanted in BY_HAND[command].items():
        path = paths.get(name)
        whole = Path.cwd() / path if path else None
        found = whole.with_suffix("") if whole and name == "alignments" else whole
        if found and found != job / wanted.format(side=side):
            raise GateError(
                NOT_ALLOWED, f"{command} may not work on {path}: name {wanted.format(side=side)} of the job's folder."
            )
    if command in PATH_OPTIONS:
        own = ["-C", f"{stage}.ini"]  # written by the supervisor
        at = next((at for at in range(len(words)) if list(words[at : at + 2]) == own), len(words))
        _Words(job, stage, {}).plain([*words[:at], *words[at + 2 :]], command)
    alignments, faces = paths.get("alignments"), paths.get("faces")
    if command == "convert" and alignments and alignments.suffix == ".fsa" and not faces:
        raise GateError(NOT_ALLOWED, "convert swaps only the faces that were extracted: name them with -a faces_a.")
    shape = Shape(f"input/{source.name}", alignments.name if alignments else "", faces=faces is not None)
    try:
        made = BY_HAND[command]["faces" if command == "extract" else "output"].format(side=side)
        _see_outputs(job, stage, {"outputs": [made]})
        _admit_files(Admission(job, stage, consents_of(job), {}, {}, Look(job)), shape)
    except ConsentError as error:
        raise GateError(error.code, str(error)) from None
    except FileNotFoundError as error:
        raise GateError(NOT_ALLOWED, f"{error.filename} is missing: put it there, and run it again.") from None

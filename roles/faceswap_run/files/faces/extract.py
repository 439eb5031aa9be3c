"""Extract the faces of one source, whole or in ranges of frames, with either engine.

    extract.py --engine ENGINE.json [--report FOLDER] [--least N] [--most-strangers PERCENT] [--converted]
        [--frames FIRST-LAST] [--ranges N] -- extract -i SOURCE ...
    extract.py --engine ENGINE.json --range FIRST-LAST -- extract -i SOURCE ...
    extract.py --engine ENGINE.json [...] --join -- extract -i SOURCE ...

What stands after `--` (and before another `--`) is the engine's own command. It needs `-i`, `-o` and `-p`.

The first form is the whole work: it looks at the source, has the engine work on it in N ranges side by side, joins
what they made, leaves out the faces of all but the consented person, whose reference picture lies in `consent` beside
FACES (`faces_a` or `faces_b`), and reports what was found. The other two are the same in commands that need nothing
of each other but a disk, for the elements of a job array: each `--range` leaves its part in `FACES.parts/FIRST-LAST`,
and `--join` makes one of them that is the same, to the byte of each face, as what the engine makes of the whole.

A part works on images which the source is cut into. A video that is to be shown turned (portrait, from a phone) is
always worked on so: the engines know nothing of its display matrix, and faces that lie on their side are not found.
The frames are cut upright, and what is found is turned back to the frames as they are stored, which convert works on.

With `-A file` among the engine's words (air-gapped: no weights are needed) the built-in detector finds the faces
first and Faceswap imports them.
"""

import argparse
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alignments
import face_report
import identity
import media
from alignments import AlignmentsError, Turn
from command import EngineError, apart, start_log, take_engine
from gate import GateError, admit_by_hand
from identity import Finding, IdentityError, Person
from media import MediaError
from ranges import STOPPED, HopelessError, frame_range, run_side_by_side, split

# A frame as PNG, in bytes per pixel: three for what hardly compresses, such as film grain.
PNG_BYTES = 3
NOT_THE_PERSON = 31  # exit code: the faces are not the consented person's
MOST_STRANGERS = (0, 50)  # per cent
# Faceswap says this and hangs.
NO_WEIGHTS = re.compile(r"ERROR\s+Failed to download model.*?\(Error: '(?P<why>.*?)'(?:, URL: '(?P<url>.*?)')?\)")

log = logging.getLogger("extract")


class ExtractError(Exception):
    """One sentence that names the cause and the remedy."""


@dataclass(frozen=True)
class Work:
    """What the engine's words ask for; `words` are the others of them."""

    engine: dict[str, Any]
    source: Path
    faces: Path
    alignments: Path
    every: int
    words: list[str]

    @property
    def faceswap(self) -> bool:
        """Whether the engine is the real Faceswap."""
        return bool(self.engine.get("name") == "faceswap")

    @property
    def parts(self) -> Path:
        """Where ranges leave what they made."""
        return self.faces.with_name(f"{self.faces.name}.parts")

    @property
    def imports(self) -> bool:
        """Whether Faceswap imports the faces that the built-in detector finds."""
        return any(pair == ("-A", "file") for pair in zip(self.words, self.words[1:], strict=False))

    def command(self, source: Path, part: Path, *more: str) -> list[str]:
        """The engine's command for one source, which leaves its faces and alignments in a folder."""
        # Faceswap imports from a JSON file and writes what it made of it beside, with its own ending.
        ending = ".json" if self.imports else self.alignments.suffix
        outputs = ["-o", str(part / "faces"), "-p", str(part / f"alignments{ending}")]
        return [*self.engine["command"], "extract", "-i", str(source), *outputs, *self.words, *more]

    def found(self, part: Path) -> Path:
        """The alignments file in a part."""
        return part / f"alignments{self.alignments.suffix}"


def parse_words(engine_file: Path, words: Sequence[str]) -> Work:
    """Take apart the engine's command `extract -i SOURCE -o FACES -p ALIGNMENTS [...]`."""
    engine = take_engine(engine_file)
    parser = argparse.ArgumentParser("extract", allow_abbrev=False, add_help=False)
    parser.add_argument("command", choices=["extract"])
    parser.add_argument("-i", type=Path, required=True)
    parser.add_argument("-o", type=Path, required=True)
    parser.add_argument("-p", type=Path, required=True)
    parser.add_argument("-N", type=int, default=1)
    known, others = parser.parse_known_args(words)
    if (engine.get("name") == "faceswap") != (known.p.suffix == ".fsa"):
        raise ExtractError(
            f"{engine_file} describes {engine.get('name')}, and {known.p.name} is for another engine: set "
            "faceswap_run_engine to the one that faceswap_install installs (upstream for faceswap)."
        )
    return Work(engine, known.i, known.o, known.p, known.N, others)


def run_part(work: Work, source: Path, part: Path, count: int, *more: str) -> None:
    """Have the engine work on `count` frames, and see that it left its alignments."""
    part.mkdir(parents=True, exist_ok=True)
    if work.imports:
        detector = work.engine.get("detector")
        if not detector:
            raise ExtractError(
                "The air-gapped mode needs the built-in detector, which this engine was installed without: "
                "run faceswap_install again with it, or set faceswap_run_air_gapped to false."
            )
        finding = [*detector, "extract", "-i", str(source), "-p", str(part / "alignments.json"), *more]
        run_side_by_side([finding], [count], "Finding faces")
    try:
        run_side_by_side([work.command(source, part, *more)], [count], "Extracting faces", NO_WEIGHTS)
    except HopelessError as error:
        lacking = NO_WEIGHTS.search(str(error))
        raise ExtractError(
            f"Weights of Faceswap's extractor could not be downloaded ({lacking and lacking['why']}, "
            f"{lacking and lacking['url']}): have faceswap_install fetch them (faceswap_install_weights), or set "
            "faceswap_run_air_gapped to true."
        ) from None
    if not work.found(part).exists():
        raise ExtractError(f"The engine ended well but wrote no {work.found(part).name}: see the lines before.")


def run_range(work: Work, first: int, last: int) -> None:
    """Cut the frames of a range out of the source, and leave their faces and alignments in its part."""
    numbers = range(first, last + 1, work.every)
    part = work.parts / f"{first:06d}-{last:06d}"
    shutil.rmtree(part, ignore_errors=True)
    # The log files of ranges must not meet, and a crash report outlasts the part.
    logs = Path(os.environ.get("FACESWAP_OCI_STAGE_DIR") or work.parts).absolute() / part.name
    logs.mkdir(parents=True, exist_ok=True)
    os.environ["FACESWAP_OCI_STAGE_DIR"] = str(logs)
    try:
        media.cut(work.source, numbers, part / "frames")
        run_part(work, part / "frames", part, len(numbers))
    finally:
        shutil.rmtree(part / "frames", ignore_errors=True)


def run_ranges(work: Work, engine_file: Path, seen: media.Look, pieces: int) -> None:
    """Run a command of its own for each range, so many at once as there are to be pieces.

    Where the images of all ranges would take more than half of the free room, as the other side may be cut too, there
    are more and shorter ranges: each removes its images when it ends.
    """
    numbers = range(1, seen.frames + 1, work.every)
    frame = 0 if work.source.is_dir() else seen.width * seen.height * PNG_BYTES
    free = shutil.disk_usage(work.parts).free
    fit = free // 2 // frame // pieces if frame else len(numbers)  # frames of a range
    if not fit:
        raise ExtractError(
            f"{frame * pieces * 2 >> 20} MB are needed to cut images out of {work.source} and {free >> 20} MB are "
            "free: free some room."
        )
    cuts = max(pieces, -(-len(numbers) // fit))
    ranges = [(numbers[a - 1], numbers[b - 1]) for a, b in split(1, len(numbers), cuts)]
    words = ["extract", "-i", work.source, "-o", work.faces, "-p", work.alignments, "-N", work.every, *work.words]
    run_side_by_side(
        [
            [sys.executable, __file__, "--engine", str(engine_file), "--range", f"{a}-{b}", "--", *map(str, words)]
            for a, b in ranges
        ],
        [len(range(a, b + 1, work.every)) for a, b in ranges],
        "Extracting faces",
        at_once=pieces,
    )


def join(work: Work, seen: media.Look) -> None:
    """Make one of the parts: alignments and faces as the engine would have made them of the whole source."""
    video = not work.source.is_dir()
    turn = None
    if seen.turn:
        matrix = media.back(seen.turn, seen.width, seen.height, edge=1 if work.faceswap else 0)
        turn = Turn(matrix, swaps=seen.turn % 2 == 1)
    meta: dict[str, Any] = {}
    frames: dict[str, Any] = {}
    joined = work.parts / "joined"
    shutil.rmtree(joined, ignore_errors=True)
    joined.mkdir()
    for part in parts_in_order(work, seen):
        its_meta, its_frames = alignments.load(work.found(part))
        if frames and its_meta != meta:
            raise ExtractError(f"The parts in {work.parts} are of different versions of Faceswap: make them anew.")
        meta = its_meta
        keys = {Path(name).stem: name for name in its_frames}
        if video:
            keys = {stem: f"{stem}{work.source.suffix}" for stem in keys}
        for name, entry in its_frames.items():
            if turn:
                for face in alignments.faces_of(entry):
                    alignments.turn_face(face, turn)
            frames[keys[Path(name).stem]] = entry
        for face_file in sorted((part / "faces").glob("*.png")):
            if video:
                key = keys[face_file.stem.rpartition("_")[0]]
                (joined / face_file.name).write_bytes(alignments.rename_face(face_file.read_bytes(), key, turn))
            else:
                shutil.copyfile(face_file, joined / face_file.name)  # a kill must leave the part whole
    put(work, joined)
    alignments.save(work.alignments, meta, frames)


def parts_in_order(work: Work, seen: media.Look) -> list[Path]:
    """The parts, which must be of all frames, each once. ExtractError with the first gap."""
    found = {frame_range(path.name): path for path in work.parts.glob("*-*") if work.found(path).exists()}
    wanted = 1
    for first, last in sorted(found):
        if first != wanted:
            break
        wanted = range(first, last + 1, work.every)[-1] + work.every
    if wanted <= seen.frames or not found:
        raise ExtractError(
            f"{work.parts} holds no part that begins with frame {wanted}: first run --range {wanted}-LAST."
        )
    return [found[its_range] for its_range in sorted(found)]


def put(work: Work, faces: Path) -> None:
    """Give the folder of faces its name."""
    shutil.rmtree(work.faces, ignore_errors=True)
    faces.replace(work.faces)


def extract_all(work: Work, engine_file: Path, seen: media.Look, pieces: int) -> None:
    """Extract all frames, in ranges where these are wanted or the video is shown turned."""
    if pieces > 1 or seen.turn:
        run_ranges(work, engine_file, seen, pieces)
        join(work, seen)
    else:
        every = ["-N", str(work.every)] if work.every > 1 else []
        run_part(work, work.source, work.parts, seen.frames, *every)
        (work.parts / "faces").mkdir(exist_ok=True)  # there is none where no face was found
        put(work, work.parts / "faces")
        work.found(work.parts).replace(work.alignments)


def leave_out_strangers(work: Work, person: Person, most: int) -> Finding:
    """Leave only the person's faces in the folder and, where they alone say what is swapped, in the alignments.

    IdentityError where more than so many per cent are others'; then none are left at all.
    """
    told = person.look(work.faces)
    if told.share > most:
        for folder in (work.faces, work.parts):
            shutil.rmtree(folder, ignore_errors=True)
        work.alignments.unlink()
        who = f"{len(told.strangers)} of the {told.faces} faces in {work.source} ({told.share:.1f} %)"
        raise IdentityError(
            f"{who} are not the consented person's or cannot be told to be, and {most} % at most may be: cut out the "
            "scenes with others, or give a reference picture in which the person is seen better."
        )
    for name in told.strangers:
        (work.faces / name).unlink()
    if told.strangers and not work.faceswap:  # whose convert takes the folder's word (-a)
        meta, frames = alignments.load(work.alignments)
        alignments.drop(frames, told.strangers)
        alignments.save(work.alignments, meta, frames)
    return told


def extract(work: Work, options: argparse.Namespace) -> None:
    """The whole work, or, with `--join`, what is left of it when all ranges have been run."""
    person = Person(identity.reference_of(work.faces), work.engine)  # what is wrong with the picture is told at once
    work.faces.parent.mkdir(parents=True, exist_ok=True)
    seen = media.look(work.source, work.faceswap, options.converted)
    log.info("%s holds %s.", work.source, seen.facts())
    if options.frames:
        media.within(options.frames, range(1, seen.frames + 1), str(work.source))
    if options.join:
        join(work, seen)
    else:
        shutil.rmtree(work.parts, ignore_errors=True)
        work.parts.mkdir()
        try:
            extract_all(work, options.engine, seen, options.ranges)
        except BaseException:
            shutil.rmtree(work.parts, ignore_errors=True)  # it begins anew, and may lack the room that they take
            raise
    told = leave_out_strangers(work, person, options.most_strangers)
    shutil.rmtree(work.parts)
    if options.report:
        report = face_report.look(work.faces, work.alignments, seen, told)
        face_report.write(options.report, report)
        log.info("%s", report.summary)
        for warning in report.warnings:
            log.warning("%s", warning)
        if report.faces < options.least:
            raise ExtractError(
                f"Only {report.faces} faces were found in {seen.frames} frames of {work.source} and training needs "
                f"{options.least} at least: give a longer source, or one where the face is larger and better seen."
            )


def per_cent(text: str) -> int:
    """How many faces may be strangers'."""
    least, most = MOST_STRANGERS
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text} is not a share of strangers: give {least} to {most} (per cent)")
    return int(text)


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns the exit code: 0 done, 1 an error that was told, 20 to 30 nobody agreed to it, 31 another person's faces,
    130 interrupted.
    """
    parser = argparse.ArgumentParser(
        "extract.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--engine", type=Path, required=True, help="description of the engine, engine.json")
    parser.add_argument("--report", type=Path, help="folder for the numbers and the contact sheet")
    parser.add_argument("--least", type=int, default=0, help="faces without which it fails")
    parser.add_argument(
        "--most-strangers", type=per_cent, default=20, help="of the faces, in per cent, with more of which it fails"
    )
    parser.add_argument("--converted", action="store_true", help="the frames will be swapped and released too")
    parser.add_argument("--frames", type=frame_range, help="of these only, which there must be")
    parser.add_argument("--ranges", type=int, default=1, help="ranges worked on side by side")
    parser.add_argument("--range", type=frame_range, help="work on these frames alone, and leave a part")
    parser.add_argument("--join", action="store_true", help="join the parts of all ranges")
    own, words = apart(list(arguments))
    options = parser.parse_args(own)
    start_log(log)
    try:
        work = parse_words(options.engine, words)
        admit_by_hand("extract", work.source, work.words, faces=work.faces, alignments=work.alignments)
        if options.range:
            run_range(work, *options.range)
        else:
            extract(work, options)
    except GateError as error:
        log.error("%s", error)
        return error.code
    except IdentityError as error:
        log.error("%s", error)
        return NOT_THE_PERSON
    except (ExtractError, EngineError, MediaError, AlignmentsError) as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.error("%s: %s; mend that, and run it again.", error.filename or "Writing", error.strerror)
        return 1
    except KeyboardInterrupt:
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

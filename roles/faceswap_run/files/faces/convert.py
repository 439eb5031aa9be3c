"""Swap the face in every frame of a source, whole or in ranges of frames, with either engine.

    convert.py --engine ENGINE.json [--ranges N] -- convert -i SOURCE ...
    convert.py --engine ENGINE.json --range FIRST-LAST -- convert -i SOURCE ...

What stands after `--` (and before another `--`) is the engine's own command. It needs `-i`, `-o`, `-p` and `-m`, and
may name the wanted frames with `-R FIRST-LAST`.

The first form makes the frames in N ranges side by side, and puts them in place (`-o`) at once when each has exactly
one image that is whole and of the right size: Faceswap ends with 0 even where frames are missing. The second makes
the frames of one range, in a command that needs nothing of the others but a disk, for the elements of a job array;
the first form, run after them, makes what is still missing and puts all in place.

Until then the frames wait in `QUARANTINE.parts`, and what is whole there is not made again after a kill, unless the
words, the engine, the source, its alignments or the model changed.
"""

import argparse
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import media
from command import EngineError, apart, start_log, take_engine
from gate import GateError, admit_by_hand
from media import MediaError, within
from PIL import Image
from ranges import STOPPED, frame_range, run_side_by_side, split

SHOWN_AT_ONCE = 5  # ranges of frames in a sentence
SCANT = 100 << 20  # bytes; a disk with less room is full
CANNOT_BE_LOADED = 65  # the exit code of the engine's check_model.py where the model is at fault

Size = tuple[int, int]

log = logging.getLogger("convert")


class ConvertError(Exception):
    """One sentence that names the cause and the remedy."""


@dataclass(frozen=True)
class Work:
    """What the engine's words ask for; `words` are the others of them.

    `frames` are the first and last frame wanted, None: all; `percent` is the size they are scaled to, `settings` a
    convert.ini of one's own, `faces` a folder with those faces that are to be swapped, None: all.
    """

    engine: dict[str, Any]
    source: Path
    output: Path
    alignments: Path
    model: Path
    frames: tuple[int, int] | None
    percent: int
    settings: Path | None
    faces: Path | None
    words: list[str]

    @property
    def faceswap(self) -> bool:
        """Whether the engine is the real Faceswap."""
        return bool(self.engine.get("name") == "faceswap")

    def key(self) -> str:
        """Names what the frames are made of and how, by the sizes and times of files."""
        marks = [
            [str(file), file.stat().st_size, file.stat().st_mtime_ns]
            for path in (self.source, self.alignments, self.model, self.faces)
            if path
            for file in (sorted(path.iterdir()) if path.is_dir() else [path])
            if file.is_file()
        ]
        settings = self.settings.read_text(encoding="utf-8") if self.settings else ""
        facts = json.dumps([self.engine, self.words, settings, self.percent, self.frames, marks])
        return hashlib.sha256(facts.encode()).hexdigest()[:12]


class Frames:
    """The frames of a source on their way: made in `parts/KEY/FIRST-LAST`, collected in `parts/KEY/frames`."""

    def __init__(self, work: Work, seen: media.Look, wanted: range) -> None:
        self.work = work
        self.wanted = wanted
        self.parts = work.output.with_name(f"{work.output.name}.parts")
        self.folder = self.parts / work.key() / "frames"
        self._source = work.source
        self._spoilt = False  # whether the engine made an image that is not whole
        files = media.image_files(work.source) if work.source.is_dir() else None
        self._images = files and {number: files[number - 1] for number in wanted}
        size = scaled((seen.width, seen.height), work.percent)
        # The built-in engine turns an image as its EXIF data says.
        self._sizes = {size, size[::-1]} if files else {size}

    def name(self, number: int) -> str:
        """The image's name of a frame, by its number from 1."""
        return f"{self._images[number].stem if self._images else f'{self.work.source.stem}_{number:06d}'}.png"

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Those of the frames that are not collected."""
        there = {path.name for path in self.folder.iterdir()}
        return [number for number in numbers if self.name(number) not in there]

    def make(self, numbers: Sequence[int], pieces: int) -> None:
        """Have the engine make the frames of these numbers (ascending), in pieces side by side."""
        self._spoilt = False
        cut = [numbers[a - 1 : b] for a, b in split(1, len(numbers), pieces)]
        places = [self.folder.with_name(f"{piece[0]:06d}-{piece[-1]:06d}") for piece in cut]
        commands = [self._command(piece, place) for piece, place in zip(cut, places, strict=True)]
        try:
            run_side_by_side(commands, [len(piece) for piece in cut], "Converting")
        finally:
            for place in places:
                self.collect(place)

    def _command(self, numbers: Sequence[int], place: Path) -> list[str]:
        """The engine's command for some frames, in a new folder with all that it writes to.

        A folder of images is cut by links, as Faceswap's -R counts images by the numbers in their names.
        """
        shutil.rmtree(place, ignore_errors=True)
        source = place / "source" if self._images else self._source
        words = [*self.work.words, *(["-O", str(self.work.percent)] if self.work.percent != 100 else [])]
        if self._images:
            source.mkdir(parents=True)
            for number in numbers:
                (source / self._images[number].name).symlink_to(self._images[number].absolute())
        else:
            words += ["-R", *spans(numbers)]
        # Faceswap's convert writes to the model's state file and to a log, which side by side would not go well.
        link_model(self.work.model, place / "model")
        if self.work.settings:  # Faceswap would empty it as -C
            (place / "config").mkdir()
            shutil.copyfile(self.work.settings, place / "config" / "convert.ini")
        caches = Path(os.environ.get("FACESWAP_OCI_STAGE_DIR") or self.parts) / "cache"  # whoever begins fills them
        caches.mkdir(exist_ok=True)
        (place / "cache").symlink_to(caches.absolute())
        paths = {"-i": source, "-p": self.work.alignments, "-o": place / "frames", "-m": place / "model"}
        if self.work.faces:
            paths["-a"] = self.work.faces
        named = [word for option, path in paths.items() for word in (option, str(path))]
        log_place = f"FACESWAP_OCI_STAGE_DIR={place.absolute()}"
        return ["env", log_place, *self.work.engine["command"], "convert", *named, *words]

    def collect(self, place: Path) -> None:
        """Take the whole frames out of a piece's folder; a crash report in it is left for a person to read."""
        names = {self.name(number) for number in self.wanted}
        for path in sorted((place / "frames").glob("*.png")):
            if path.name in names and whole(path, self._sizes):
                path.replace(self.folder / path.name)
            else:
                self._spoilt = True
        if not any(place.glob("crash_report*")):
            shutil.rmtree(place, ignore_errors=True)

    def take_up(self, numbers: Sequence[int]) -> None:
        """Look at what runs before have made of these frames; a power failure may have emptied some."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            path = self.folder / self.name(number)
            if path.exists() and not whole(path, self._sizes):
                path.unlink()

    def take_over(self) -> None:
        """Collect what runs that were cut off have left, and remove what was made of other things."""
        for other in self.parts.iterdir():
            if other != self.folder.parent:
                shutil.rmtree(other)
        for place in self.folder.parent.glob("*-*"):
            self.collect(place)

    def miscounted(self, numbers: Sequence[int], missing: Sequence[int]) -> bool:
        """Whether it looks as if Faceswap took a video for shorter than it is: it never came to the last frames."""
        never = missing == list(numbers[len(numbers) - len(missing) :]) and not self._spoilt
        return bool(missing) and never and self.work.faceswap and not self._images

    def repack(self) -> None:
        """From now on let the engine read the video's very packets from a Matroska file of the same name."""
        packed = self.folder.with_name("packed") / self.work.source.name
        packed.parent.mkdir(exist_ok=True)
        with av.open(str(self.work.source)) as old, av.open(str(packed), "w", format="matroska") as new:
            stream = old.streams.video[0]
            copy = new.add_stream_from_template(stream)
            for packet in old.demux(stream):
                if packet.size:  # the last is the demuxer's end mark
                    packet.stream = copy
                    new.mux(packet)
        self._source = packed

    def give_way(self) -> None:
        """Give the room of the finished frames back where the disk is full: they would keep the next run out."""
        if shutil.disk_usage(self.parts).free < SCANT:
            log.warning("The disk is full: the finished frames in %s give way, and are made anew.", self.parts)
            shutil.rmtree(self.parts)

    def put_in_place(self) -> None:
        """Give the folder of frames its name, once its content is sure to outlast a power failure."""
        os.sync()
        shutil.rmtree(self.work.output, ignore_errors=True)
        self.folder.replace(self.work.output)
        shutil.rmtree(self.parts)


def scaled(size: Size, percent: int) -> Size:
    """Width and height in px of a frame that Faceswap scales with `-O percent`."""
    scale = percent / 100
    return round(size[0] / 2 * scale * 2), round(size[1] / 2 * scale * 2)


def whole(path: Path, sizes: set[Size]) -> bool:
    """Whether a file is a PNG of one of these sizes, to its end and with the right checksums."""
    try:
        with Image.open(path) as image:
            if image.format != "PNG" or image.size not in sizes:
                return False
            image.verify()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def spans(numbers: Sequence[int]) -> list[str]:
    """Ascending numbers as ranges: 3, 7, 8 as `3-3` and `7-8`."""
    breaks = [n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1]
    edges = zip([0, *breaks], [*breaks, len(numbers)], strict=True)
    return [f"{numbers[begin]}-{numbers[end - 1]}" for begin, end in edges]


def link_model(model: Path, place: Path) -> None:
    """A folder with a model's files, of which the state file may be written to."""
    place.mkdir(parents=True)
    for file in model.iterdir():
        if file.name.endswith("_state.json"):
            shutil.copyfile(file, place / file.name)
        elif file.is_file() and file.suffix != ".bk":
            (place / file.name).symlink_to(file.absolute())


def check_model(work: Work) -> None:
    """Refuse a model that cannot be loaded: Faceswap converts with an untrained one where the weights are missing."""
    if not any(work.model.glob("*_state.json")):
        raise ConvertError(f"There is no trained model in {work.model}: run the train stage first.")
    if not work.engine.get("check_model"):
        return
    command = [*work.engine["check_model"], str(work.model)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT_BE_LOADED:  # by any other code the check tells of itself, not of the model
        said = done.stderr.strip().splitlines() or [f"The model in {work.model} cannot be loaded: train it anew."]
        raise ConvertError(said[-1])


def parse_words(engine_file: Path, words: Sequence[str]) -> Work:
    """Take apart the engine's command `convert -i SOURCE -p ALIGNMENTS -o QUARANTINE -m MODEL [...]`."""
    engine = take_engine(engine_file)
    parser = argparse.ArgumentParser("convert", allow_abbrev=False, add_help=False)
    parser.add_argument("command", choices=["convert"])
    for option in ("-i", "-p", "-o", "-m"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("-R", type=frame_range)
    parser.add_argument("-O", type=int, default=100)
    parser.add_argument("-C", type=Path)
    parser.add_argument("-a", type=Path)
    known, others = parser.parse_known_args(words)
    return Work(engine, known.i, known.o, known.p, known.m, known.R, known.O, known.C, known.a, others)


def convert(work: Work, only: tuple[int, int] | None, pieces: int) -> None:
    """The whole work, in pieces side by side, or that of one range alone."""
    check_model(work)
    if not work.alignments.exists():
        raise ConvertError(f"{work.alignments} is missing: run the extract stage first.")
    seen = media.look(work.source, work.faceswap, converted=True)
    wanted = range(1, seen.frames + 1)
    if work.frames:
        wanted = within(work.frames, wanted, str(work.source))
    numbers = within(only, wanted, "the wanted part") if only else wanted
    frames = Frames(work, seen, wanted)
    frames.take_up(numbers)
    if only:
        make_all(frames, numbers, pieces)
        return
    frames.take_over()
    try:
        make_all(frames, numbers, pieces)
    except BaseException:
        frames.give_way()
        raise
    frames.put_in_place()


def make_all(frames: Frames, numbers: Sequence[int], pieces: int) -> None:
    """Have what is missing of these frames made. ConvertError where the engine ends well without all of them."""
    source = frames.work.source
    missing = frames.missing(numbers)
    if len(missing) < len(numbers):
        log.info("%d of %d frames are there already.", len(numbers) - len(missing), len(numbers))
    if missing:
        frames.make(missing, pieces)
        missing = frames.missing(numbers)
    if frames.miscounted(numbers, missing):
        # Faceswap has an ffmpeg of its own count the frames first, and stops at that number; on an MPEG transport
        # stream that ffmpeg crashes, and no frame is made.
        log.warning("Faceswap stopped at frame %d: it gets %s in another container.", missing[0], source)
        frames.repack()
        frames.make(missing, pieces)
        missing = frames.missing(numbers)
    if missing:
        places = spans(missing)
        more = " and more" if len(places) > SHOWN_AT_ONCE else ""
        raise ConvertError(
            f"The engine made no whole image of frames {', '.join(places[:SHOWN_AT_ONCE])}{more} of {source}, "
            "as lines before this one may explain: run it again, or encode the source anew if it stays so."
        )
    log.info("All %d frames are there, whole and of one size.", len(numbers))


def main(arguments: Sequence[str]) -> int:
    """Run one command.

    Returns the exit code: 0 done, 1 an error that was told, 20 to 30 nobody agreed to it, 130 interrupted.
    """
    parser = argparse.ArgumentParser(
        "convert.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--engine", type=Path, required=True, help="description of the engine, engine.json")
    parser.add_argument("--ranges", type=int, default=1, help="ranges worked on side by side")
    parser.add_argument("--range", type=frame_range, help="make these frames alone, and leave them in a folder")
    own, words = apart(list(arguments))
    options = parser.parse_args(own)
    start_log(log)
    try:
        work = parse_words(options.engine, words)
        paths = {"alignments": work.alignments, "output": work.output, "model": work.model, "faces": work.faces}
        admit_by_hand("convert", work.source, work.words, **paths)
        convert(work, options.range, options.ranges)
    except GateError as error:
        log.error("%s", error)
        return error.code
    except (ConvertError, EngineError, MediaError) as error:
        log.error("%s", error)
        return 1
    except av.error.FFmpegError as error:
        log.error("The source cannot be put into another container (%s): encode it anew as mp4.", error.strerror)
        return 1
    except OSError as error:
        log.error("%s: %s; mend that, and run it again.", error.filename or "Writing", error.strerror)
        return 1
    except KeyboardInterrupt:
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A test double of an engine's convert, for tests of faces/convert.py alone: it writes each frame with a dot in it.

As Faceswap's it takes a video's frames by `-R`, writes to the model's state file, and ends with 0 whatever happened
to a frame. With -a only frames with a face in that folder get their dot.

FAULT in the environment is `KIND:FRAME`: `omit` makes no image of that frame, `row` writes a raw row of
its pixels (Faceswap, where a swap failed), `small` scales it, `full` fills the disk, `crash` ends with 3 there and
`wait` waits for a signal; `container:mpegts` makes no frame at all of a
file of that format. MADE names a file with a line for each frame that was made.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import av
from PIL import Image


def pictures(source: Path, ranges: list[str]) -> Iterator[tuple[str, Image.Image]]:
    """Names and pictures of the wanted frames."""
    wanted = {n for text in ranges for n in range(int(text.split("-")[0]), int(text.split("-")[1]) + 1)}
    if source.is_dir():
        assert not ranges, "a folder's images have no numbers"
        for path in sorted(source.iterdir()):
            yield path.stem, Image.open(path).convert("RGB")
        return
    with av.open(str(source)) as container:
        if os.environ.get("FAULT") == f"container:{container.format.name}":
            return
        for number, frame in enumerate(container.decode(video=0), 1):
            if not wanted or number in wanted:
                yield f"{source.stem}_{number:06d}", Image.fromarray(frame.to_ndarray(format="rgb24"))


def main() -> int:
    """Convert; returns the exit code."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["convert"])
    for option in ("-i", "-o", "-p", "-m"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("-R", nargs="+", default=[])
    parser.add_argument("-O", type=int, default=100)
    parser.add_argument("-c", default="none")
    parser.add_argument("-a", type=Path)
    options = parser.parse_args()
    kind, _, at = os.environ.get("FAULT", ":").partition(":")
    for state in options.m.glob("*_state.json"):
        state.write_text('{"touched": true}')
    assert options.p.exists()
    options.o.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures(options.i, options.R):
        path = options.o / f"{name}.png"
        hit = bool(at) and name.endswith(at)
        if hit and kind == "wait":
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            path.write_bytes(b"\x89PNG\r\n\x1a\n half of it")
            signal.pause()
        if hit and kind == "crash":
            print("01/02/2026 12:00:00 ERROR    The double fell over.", flush=True)
            return 3
        if hit and kind == "full":
            print(f"01/02/2026 12:00:00 ERROR    Failed to save image '{path}'. [Errno 28] No space left on device")
            path.touch()
            continue
        if hit and kind == "row":
            path.write_bytes(picture.tobytes()[: picture.width * 3])
            continue
        if hit and kind == "omit":
            continue
        scale = options.O / (200 if hit and kind == "small" else 100)
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size)
        if not options.a or (options.a / f"{name}_0.png").exists():
            picture.putpixel((0, 0), (255, 0, len(options.c)))
        picture.save(path)
        if "MADE" in os.environ:
            with Path(os.environ["MADE"]).open("a") as made:
                made.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line: Faceswap's names for extract, train and convert, as far as this engine needs them."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from minifaceswap.errors import UserError

NOTICE = "minifaceswap, a small demonstration engine that runs on a CPU; it is not Faceswap"

log = logging.getLogger(__name__)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """An option's type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        number = int(text)
        if number < least or (most is not None and number > most):
            bounds = f"{least} or more" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{number} is not {bounds}")
        return number

    parse.__name__ = "whole number"  # argparse names the type so in its message
    return parse


def frame_range(text: str) -> range:
    """The frames of a range such as 10-50, counted from 1 and inclusive."""
    match = re.fullmatch(r"(\d+)-(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is not a range of frames: write first-last, such as 1-50")
    return range(int(match[1]), int(match[2]) + 1)


def parser() -> argparse.ArgumentParser:
    """All options; their names and defaults are Faceswap's where it has them."""
    top = argparse.ArgumentParser("faceswap.py", description=f"{NOTICE}.", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="{extract,train,convert}")

    def command(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=about, description=f"{NOTICE}. {about}", allow_abbrev=False)

    extract = command("extract", "Find the largest face of each frame, save it and its landmarks.")
    convert = command("convert", "Paint face B over face A in each frame and write the frames as images.")
    for sub in (extract, convert):
        sub.add_argument("-i", "--input-dir", type=Path, required=True, help="video, or folder of images")
        sub.add_argument(
            "-p", "--alignments", type=Path, help="alignments file (default: beside the input, *_alignments.json)"
        )
    extract.add_argument("-o", "--output-dir", type=Path, help="folder for the faces (default: save none)")
    extract.add_argument("-z", "--size", type=whole(256, 1024), default=256, help="pixels of a saved face (256)")
    extract.add_argument("-N", "--extract-every-n", type=whole(1, 100), default=1, help="use every n-th frame (1)")

    train = command("train", "Train a model on the faces of A, whose head stays, and B, whose face comes.")
    train.add_argument("-A", "--input-A", type=Path, required=True, help="folder of A's faces")
    train.add_argument("-B", "--input-B", type=Path, required=True, help="folder of B's faces")
    train.add_argument("-m", "--model-dir", type=Path, required=True, help="folder of the model, made or resumed")
    train.add_argument(
        "-t", "--trainer", choices=["lightweight"], default="lightweight", help="the only model there is"
    )
    train.add_argument(
        "-b", "--batch-size", type=whole(1, 256), default=16, help="faces of each side per iteration (16)"
    )
    train.add_argument(
        "-i", "--iterations", type=whole(1, 5_000_000), default=1_000_000, help="how many more (1000000)"
    )
    train.add_argument("-s", "--save-interval", type=whole(1), default=250, help="iterations between saves (250)")
    train.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=1, help="of a new model (1); not an option of Faceswap"
    )

    convert.add_argument("-o", "--output-dir", type=Path, required=True, help="folder for the frames")
    convert.add_argument("-m", "--model-dir", type=Path, required=True, help="folder of the trained model")
    convert.add_argument(
        "-c", "--color-adjustment", choices=["avg-color", "none"], default="avg-color",
        help="bring the mean colour of the new face to that of the old (avg-color)",
    )  # fmt: skip
    convert.add_argument(
        "-M", "--mask-type", choices=["components", "extended"], default="extended",
        help="hull of the landmarks, extended: with the forehead (extended)",
    )  # fmt: skip
    convert.add_argument("-w", "--writer", choices=["opencv"], default="opencv", help="images are all it writes")
    convert.add_argument(
        "-R", "--frame-ranges", nargs="+", type=frame_range, metavar="FIRST-LAST", help="only these frames, from 1"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0 done, 1 an error that was told, 130 interrupted unfinished."""
    options = parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stdout, format="%(asctime)s %(levelname)-8s %(message)s", datefmt="%m/%d/%Y %H:%M:%S"
    )
    logging.getLogger("minifaceswap").setLevel(logging.INFO)
    log.info("%s.", NOTICE)
    try:
        run(options)
    except UserError as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.error(
            "%s: %s; make room or give another place, then run the same command again.",
            error.filename or "Writing",
            error.strerror,
        )
        return 1
    except KeyboardInterrupt:
        log.warning("Interrupted before the end: run the same command again.")
        return 130
    return 0


def run(options: argparse.Namespace) -> None:
    """Call the command's function; its libraries are loaded only now, as they take seconds."""
    if options.command == "train":
        from minifaceswap.train import train

        sides = (options.input_A, options.input_B)
        train(sides, options.model_dir, options.batch_size, options.iterations, options.save_interval, options.seed)
        return
    source: Path = options.input_dir
    alignments: Path = options.alignments or source.parent / f"{source.stem}_alignments.json"
    if options.command == "extract":
        from minifaceswap.extract import extract

        extract(source, options.output_dir, alignments, options.size, options.extract_every_n)
    else:
        from minifaceswap.convert import Look, convert

        look = Look(options.mask_type, options.color_adjustment)
        convert(source, options.output_dir, options.model_dir, alignments, look, options.frame_ranges or [])

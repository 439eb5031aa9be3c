"""Starts Faceswap from its checkout so that it writes nothing there.

    python run_faceswap.py CHECKOUT {extract,train,convert} ...

Faceswap writes its log, crash reports and preview beside the program that was started. Here that is, as it is told,
in the stage's folder (FACESWAP_OCI_STAGE_DIR, else where it was started), and what torch and its companions compile
is kept there too: the checkout may be root's, and the user need not have a home.

Where that folder has a `config` with settings (`convert.ini`), it is run from a copy of the checkout with them: there
is no other way to settings of one's own for convert, whose `-C` the pinned Faceswap reads as training's and empties.
"""

import os
import shutil
import sys
from pathlib import Path

CACHES = {
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
}
NOT_COPIED = ("docs", "locales", "tests", "tools")


def with_settings(checkout: Path, stage: Path) -> Path:
    """Return a copy of the checkout (4 MB) in the stage's folder that has the stage's settings."""
    copy = stage / "checkout"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    shutil.copytree(stage / "config", copy / "config", dirs_exist_ok=True)
    return copy


def main() -> None:
    """Run Faceswap's own program in this process, which signals reach as they would reach Faceswap."""
    checkout = Path(sys.argv.pop(1)).resolve()
    stage = Path(os.environ.get("FACESWAP_OCI_STAGE_DIR") or Path.cwd()).resolve()
    for name, folder in CACHES.items():
        os.environ.setdefault(name, str(stage / "cache" / folder))
    if (stage / "config").is_dir():
        checkout = with_settings(checkout, stage)
    sys.argv[0] = str(stage / "faceswap.py")
    sys.path[0] = str(checkout)
    # Not by runpy, which would put the program's path into argv[0] again.
    program = checkout / "faceswap.py"
    globals()["__file__"] = str(program)
    exec(compile(program.read_bytes(), str(program), "exec"), globals())


if __name__ == "__main__":
    main()

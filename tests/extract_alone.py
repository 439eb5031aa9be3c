"""Runs extract.py as it is, but for the identity check: here every face is the consented person's.

    extract_alone.py --engine ENGINE.json ...

For tests of all else, with sources that show no persons. With EXTRACT_COMPARES in the environment the check is there
too (tests/test_identity.py).
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "roles" / "faceswap_run" / "files" / "faces"))

import extract
import identity


class Anyone:
    """In place of identity.Person."""

    def __init__(self, *_: object) -> None:
        pass

    def look(self, faces: Path) -> identity.Finding:
        """Tell nobody from anybody."""
        return identity.Finding([], len(list(faces.glob("*.png"))), 1.0)


vars(extract)["__file__"] = str(Path(__file__).resolve())  # the ranges' commands are of this program, too
vars(extract)["admit_by_hand"] = lambda *_, **__: None  # tests/test_gate.py asks whether anybody agreed

if "EXTRACT_COMPARES" not in os.environ:
    identity.reference_of = lambda faces: faces
    vars(extract)["Person"] = Anyone

if __name__ == "__main__":
    sys.exit(extract.main(sys.argv[1:]))

# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""From one try to the next: which refusal rules out which tries, and how long to wait for a free host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import OciError
from ansible_collections.faceswap.ops.plugins.module_utils.oci_launch import Candidate, LaunchRefusedError
from ansible_collections.faceswap.ops.plugins.module_utils.oci_limits import Limit
from ansible_collections.faceswap.ops.plugins.module_utils.oci_plan import Plan
from ansible_collections.faceswap.ops.plugins.module_utils.progress import clock
from ansible_collections.faceswap.ops.plugins.module_utils.run_progress import RunProgress

# Between two rounds: asking more often finds no host sooner, and Oracle answers with 429 to all that one does.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0


def launch_first(plan: Plan, launch: Callable[[Candidate], Any], wait_s: float, progress: RunProgress) -> Any:
    """Return what `launch` returns for the first try of the plan that it does not refuse.

    `launch` raises LaunchRefusedError where another try may go better. Where all that is in the way is a lack of
    capacity, the round is repeated until `wait_s` seconds are over. Raises OciError with every cause and remedy.
    """
    began = time.monotonic()
    pause = _FIRST_PAUSE_S
    tell: Callable[[str], None] = progress.say
    while True:
        for candidate in plan.candidates:
            if candidate.verdict:  # or ruled out by a refusal in this very round
                continue
            tell(f"Launching {candidate.what}")
            try:
                return launch(candidate)
            except LaunchRefusedError as refused:
                tell(str(refused))
                if refused.kind == "limit":
                    limit_refused(plan.candidates, candidate, str(refused))
                else:
                    candidate.rule_out(refused.kind, str(refused))
        full = [candidate for candidate in plan.candidates if candidate.verdict == "capacity"]
        waited = time.monotonic() - began
        if not full or waited >= wait_s:
            raise OciError(plan.refusal(waited if wait_s else 0))
        _rest(min(pause, wait_s - waited), began + wait_s, progress)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        tell = progress.now  # the same again for hours is nothing to keep on the screen
        for candidate in full:
            candidate.rule_out("", "")


def limit_refused(candidates: Iterable[Candidate], refused: Candidate, answer: str) -> None:
    """Oracle's answer to a launch names a limit or a quota: rule out every try that this rules out too.

    That is each one that needs at least as much of it at the same place: the domain, or the region where the limit
    is one of the region. `answer` is Oracle's sentence.
    """
    refused.rule_out("limit", f"{answer.rstrip('.')} (that was {refused.what}).")
    for limit, need in refused.limits:
        if limit.name not in answer:
            continue
        why = _ask_for(limit, need, answer)
        for row in candidates:
            mine = [amount for other, amount in row.limits if (other.name, other.where) == (limit.name, limit.where)]
            if row is refused or (mine and mine[0] >= need and not row.verdict):
                row.rule_out("limit", why)


def _ask_for(limit: Limit, need: float, answer: str) -> str:
    return (
        f"{answer.rstrip('.')}: ask Oracle for {need:g} more of {limit.name}, service {limit.service}, in "
        f"{limit.where} (docs/oci-setup.md, 'Limits'), or raise your own quota where that is what holds it back."
    )


def _rest(seconds: float, deadline: float, progress: RunProgress) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        progress.now(f"no free host: next try in {clock(left)}, giving up in {clock(deadline - time.monotonic())}")
        time.sleep(min(left, 1.0))

# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""From one try to the next: which refusal rules out which tries, and how long to wait for a free host."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import OciError
from ansible_collections.faceswap.ops.plugins.module_utils.oci_launch import Candidate, LaunchRefusedError
from ansible_collections.faceswap.ops.plugins.module_utils.oci_plan import Plan
from ansible_collections.faceswap.ops.plugins.module_utils.progress import clock
from ansible_collections.faceswap.ops.plugins.module_utils.run_progress import RunProgress

_LIMITS = {  # kinds of refusal, and whom to ask
    "limit": "ask Oracle (docs/oci-setup.md, 'Limits')",
    "quota": "raise the compartment's quota, which is your own (docs/oci-setup.md, 'A cap on costs')",
}
# Between two rounds: asking more often finds no host sooner, and Oracle answers with 429 to all that one does.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 60.0


def launch_first(
    plan: Plan,
    launch: Callable[[Candidate], Any],
    wait_s: float,
    check_alone: Callable[[], None],
    progress: RunProgress,
) -> Any:
    """Return what `launch` returns for the first try of the plan that it does not refuse.

    `launch` raises LaunchRefusedError where another try may go better. Where all that is in the way is a lack of
    capacity, the round is repeated until `wait_s` seconds are over; `check_alone` is called before each repetition,
    and raises where somebody else has launched meanwhile. Raises OciError with every cause and remedy.
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
                if refused.kind in _LIMITS:
                    limit_refused(plan.candidates, candidate, refused)
                else:
                    candidate.rule_out(refused.kind, str(refused))
                if refused.kind == "throttled":  # and so would be the next one
                    break
        full = [candidate for candidate in plan.candidates if candidate.verdict in ("capacity", "throttled")]
        waited = time.monotonic() - began
        if not full or waited >= wait_s:
            raise OciError(plan.refusal(waited if wait_s else 0))
        if tell == progress.say:
            progress.say(f"Oracle has no free host: trying on for {clock(wait_s - waited)}.")
            tell = _keep_quiet  # the same again for hours is nothing to keep on the screen
        _rest(min(pause, wait_s - waited), began + wait_s, progress)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        check_alone()
        for candidate in full:
            candidate.rule_out("", "")


def limit_refused(candidates: Iterable[Candidate], first: Candidate, refused: LaunchRefusedError) -> None:
    """The answer to a launch names a limit, or a quota of the tenancy's own: rule out each try that it rules out.

    That is what needs at least as much of it at the same place: the domain, or the region where the limit is one of
    the region. `refused` says what Oracle said.
    """
    remedy = _LIMITS[refused.kind]
    first.rule_out(refused.kind, f"Oracle refused {first.what} ({str(refused).rstrip('.')}): {remedy}.")
    for limit, need in first.limits:
        if limit.name not in str(refused):
            continue
        why = f"{limit.name} of service {limit.service} is exceeded in {limit.where}, says a launch: {remedy}"
        for row in candidates:
            mine = [amount for other, amount in row.limits if (other.name, other.where) == (limit.name, limit.where)]
            if row is first or (mine and mine[0] >= need and not row.verdict):
                row.rule_out(refused.kind, f"{why}, for {need:g} more.")


def _keep_quiet(_text: str) -> None:
    pass


def _rest(seconds: float, deadline: float, progress: RunProgress) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        progress.now(f"no free host: next try in {clock(left)}, giving up in {clock(deadline - time.monotonic())}")
        time.sleep(min(left, 1.0))

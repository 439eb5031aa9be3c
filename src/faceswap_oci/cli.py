"""The command line `faceswap-oci`: options in, exit code and a result out."""

import argparse
import io
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

from faceswap_oci import audit, consent, environment, verify
from faceswap_oci.play import DESTROY, REVOKE, SITE, Order, Outcome, Phase, UsageError, play, state_folder
from faceswap_oci.screen import Screen, clock_text

# The documented tags of site.yml; a test holds them against `ansible-playbook --list-tags`.
_ROLES = ("oci_instance", "nvidia_cuda", "faceswap_install", "faceswap_run")
TAGS = ("plan", *_ROLES, "extract", "train", "convert", "release", "stop")

EXIT_CODES = """\
exit codes:
  0    done
  1    a task failed
  2    wrong use: nothing was played
  3    nothing was run: no host for what was asked for
  4    a host could not be reached
  5    Ansible could not play the playbook, or the wrapper itself failed
  20   consent is missing: no record, signature or picture, or nobody is trusted here to sign
  21   a record cannot be read
  22   a record has expired
  23   a record is not valid yet
  24   a record was revoked
  25   a record was altered after it was signed
  26   a record is signed by a stranger
  27   a record is for another file
  28   a record is for another use, or both are of one person
  29   the list of trusted signers or of revoked records cannot be used
  30   a stage's words, engine or files are not what the consented job may work with
  31   other people's faces: too many of them, or a reference picture without exactly one face
  32   the result could not be signed, and stays in quarantine
  124  the time of --timeout was over
  129, 130, 143   ended by SIGHUP, SIGINT (Ctrl-C), SIGTERM
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(argv)
    human = sys.stderr if options.json else sys.stdout
    try:
        if options.command in ("consent", "audit", "verify"):
            code = _without_a_play(options)
            sys.stdout.flush()  # here, where it is seen that nobody reads any more
            return code
        outcome = _run(options, Screen(human))
        if options.check:  # named is what would be made
            outcome.video = outcome.report = None
        if not outcome.message and not outcome.failures:
            _print_results(outcome, "would change" if options.check else "changed", human)
        for sentence in _bad_news(outcome):
            print(sentence, file=sys.stderr)
        if options.json:
            print(json.dumps(asdict(outcome)), flush=True)
    except BrokenPipeError:  # the reader went away (`| head`): end as a program that SIGPIPE ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:  # before or after the play, which takes the signal itself
        return 130
    return outcome.exit_code


def find_root(start: Path) -> Path:
    """The checkout around `start`, or else the one that this package was installed from (editable).

    The role is asked for too: many a folder has a site.yml and an ansible.cfg, and must not be played.
    """
    for folder in (start, *start.parents, *Path(__file__).resolve().parents):
        if all((folder / name).exists() for name in ("site.yml", "ansible.cfg", "roles/faceswap_run")):
            return folder
    raise UsageError(
        f"Neither {start} nor a folder above it is a checkout of faceswap-oci "
        "(site.yml, ansible.cfg and roles/faceswap_run): change into your clone and try again."
    )


def extra_vars(texts: Sequence[str], start: Path) -> tuple[list[Path], dict[str, Any]]:
    """Sort the texts of -e into files (`@file`, made absolute from `start`) and values (`key=value`).

    A value that is JSON (300, true, ["a"]) has that type, all else is text. Raises UsageError.
    """
    files: list[Path] = []
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if text.startswith("@"):
            path = (start / Path(text[1:]).expanduser()).resolve()
            if not path.is_file():
                raise UsageError(f"-e {text}: there is no such file; check the path after the @.")
            files.append(path)
        elif equals and key.isidentifier():
            try:
                values[key] = json.loads(value)
            except ValueError:
                values[key] = value
        else:
            raise UsageError(
                '-e takes @file.yml or name=value (a name is letters, digits and _; a list is name=["a","b"]).'
            )
    return files, values


def _parser() -> argparse.ArgumentParser:
    variables = argparse.ArgumentParser(add_help=False)
    variables.add_argument(
        "-e",
        "--extra-vars",
        action="append",
        default=[],
        metavar="@FILE|KEY=VALUE",
        help="job file, or a value (JSON such as 300 or true, else text), which wins over files; repeatable",
    )
    common = argparse.ArgumentParser(add_help=False, parents=[variables])
    common.add_argument("--json", action="store_true", help="the result as JSON, in the last line of stdout")
    common.add_argument("--timeout", type=_seconds, metavar="S", help="stop watching after S seconds")
    elsewhere = argparse.ArgumentParser(add_help=False)
    elsewhere.add_argument(
        "-i", "--inventory", action="append", default=[], help="default: that of ansible.cfg, this machine"
    )
    dry = argparse.ArgumentParser(add_help=False)
    dry.add_argument("--check", action="store_true", help="change nothing, show what would change")
    parts = argparse.ArgumentParser(add_help=False, parents=[dry])
    parts.add_argument("--tags", default="", metavar="TAG,...", help=f"only these: {', '.join(TAGS)}")

    parser = argparse.ArgumentParser(
        prog="faceswap-oci",
        description="From two videos to a face-swapped one, played by Ansible.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("demo", parents=[common, parts], help="the built-in demo, on this machine")
    commands.add_parser("run", parents=[common, elsewhere, parts], help="a job, on the hosts of an inventory")
    stop = commands.add_parser(
        "stop", parents=[common, elsewhere], help="stop the job on its host; what was made is kept"
    )
    stop.set_defaults(tags="stop", check=False)
    destroy = commands.add_parser(
        "destroy",
        parents=[common, elsewhere, dry],
        help="terminate the inventory's instances on Oracle Cloud, leave nothing",
    )
    destroy.set_defaults(tags="")
    consent.add_parser(commands, [variables, elsewhere])
    audit.add_parser(commands)
    verify.add_parser(commands)
    return parser


def _without_a_play(options: argparse.Namespace) -> int:
    """Do what needs no play, or (a revocation) more than one."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path need not be text, and is shown all the same
    start = Path.cwd()
    try:
        root = find_root(start)
        if options.command == "audit":
            return audit.run(options, root)
        if options.command == "verify":
            return verify.run(options, root)
        revokes = options.verb == "revoke"
        order = _order(options, start) if revokes else Order(root)  # what cannot be played is refused before it signs

        def player(values: Mapping[str, Any]) -> Outcome:
            variables, _ = environment.allowed(os.environ)
            given = replace(order, values={**order.values, **values})
            return play(given, Screen(sys.stdout), variables, state_folder(os.environ))

        return consent.run(options, root, player)
    except UsageError as error:
        print(error, file=sys.stderr)
        return error.code


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _run(options: argparse.Namespace, screen: Screen) -> Outcome:
    began = time.time()
    try:
        order = _order(options, Path.cwd())
        origin = _origin(os.environ, began)
        variables, refused = environment.allowed(os.environ)
        for name in refused:
            screen.line(f"{name} holds a login, so it is not passed on: use a file (pip.conf, ~/.netrc).")
        outcome = play(order, screen, variables, state_folder(os.environ))
    except UsageError as error:
        return Outcome("refused", error.code, str(error))
    if origin < began:
        outcome.phases.insert(0, Phase("environment set-up", round(began - origin, 1)))
    outcome.seconds = round(time.time() - origin, 1)
    return outcome


def _order(options: argparse.Namespace, start: Path) -> Order:
    root = find_root(start)
    files, values = extra_vars(options.extra_vars, start)
    # A tag that no play has would end in success with nothing done.
    tags = [tag for tag in options.tags.split(",") if tag]
    if unknown := [tag for tag in tags if tag not in TAGS]:
        raise UsageError(f"There is no tag {unknown[0]!r}; the tags are {', '.join(TAGS)}.")
    given = [str(root / "inventory" / "demo")] if options.command == "demo" else options.inventory
    playbook = {"destroy": DESTROY, "consent": REVOKE}.get(options.command, SITE)
    return Order(root, playbook, _inventory(given, start), files, values, tags, options.check, options.timeout)


def _inventory(given: Sequence[str], start: Path) -> list[str]:
    """The inventories as absolute paths: the play runs in the checkout. A list of hosts has a comma."""
    made = []
    for text in given:
        path = (start / Path(text).expanduser()).absolute()
        if not path.exists() and "," not in text:
            raise UsageError(f"There is no inventory {text}: give a file or a folder, or hosts as 'name,'.")
        made.append(str(path) if path.exists() else text)
    return made


def _origin(environ: Mapping[str, str], began: float) -> float:
    """When the work began (epoch seconds): the Makefile says it before it makes the virtual environment."""
    try:
        return float(environ.get("FACESWAP_OCI_STARTED") or began)
    except ValueError:
        raise UsageError("FACESWAP_OCI_STARTED must be seconds since 1970, as `date +%s` prints.") from None


def _print_results(outcome: Outcome, verb: str, stream: TextIO) -> None:
    rows = [(phase.name, phase.seconds) for phase in outcome.phases] + [("total", outcome.seconds)]
    width = max(len(name) for name, _ in rows)
    print(file=stream)
    for name, seconds in rows:
        print(f"{name:<{width}}  {clock_text(seconds):>8}", file=stream)
    print(f"\n{outcome.changed} {verb}", file=stream)
    for name, path in (("video", outcome.video), ("report", outcome.report)):
        if path:
            print(f"{name:<6}  {path}", file=stream)
    if outcome.certificate == "test":
        print(
            "signed with a TEST certificate, which proves nothing about who made it (docs/provenance.md)", file=stream
        )


def _bad_news(outcome: Outcome) -> list[str]:
    made = [outcome.message] if outcome.message else []
    made += [f"{bad.play} failed on {bad.host}, at '{bad.task}': {bad.message}" for bad in outcome.failures]
    return [*made, f"The full log: {outcome.log}"] if made and outcome.log else made

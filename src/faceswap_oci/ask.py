"""Questions on a terminal; where there is none, nobody is asked and nothing waits."""

import sys
from collections.abc import Callable, Mapping

from faceswap_oci.play import UsageError


def terminal() -> bool:
    """Whether somebody sits there who can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def text(question: str, default: str = "", fits: Callable[[str], str | None] = lambda _: None) -> str:
    """Ask until there is an answer that fits: `fits` says what is wrong with one. UsageError at the input's end."""
    shown = f"{question} [{default}]: " if default else f"{question}: "
    while True:
        try:
            answer = input(shown).strip() or default
        except EOFError:
            print()
            raise UsageError("The questions were not answered, so nothing was written.") from None
        wrong = fits(answer) if answer else "An answer is needed here (Ctrl-C ends)."
        if wrong is None:
            return answer
        print(f"  {wrong}")


def choice(question: str, answers: Mapping[str, str]) -> str:
    """Ask for one of several answers, none of which is the default, by number or word; return its word."""
    print(f"{question}")
    for number, (word, meaning) in enumerate(answers.items(), 1):
        print(f"  {number}  {word:<{max(map(len, answers))}}  {meaning}")
    meant = {str(number): word for number, word in enumerate(answers, 1)} | {word: word for word in answers}

    def wrong(answer: str) -> str | None:
        return None if answer.lower() in meant else f"Type one of {', '.join(meant)}."

    return meant[text("Number or word", fits=wrong).lower()]


def yes(question: str, default: str = "y") -> bool:
    """Ask whether to do something; Return alone is yes, or what `default` (y or n) says."""

    def wrong(answer: str) -> str | None:
        return None if answer.lower() in ("y", "yes", "n", "no") else "Type y or n."

    return text(f"{question} (y or n)", default, wrong).lower().startswith("y")

# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What is wrong with options and settings of an engine, told before a host or money is touched.

What each engine takes is data, plugin_utils/faceswap_options.json, which `make contract` reads from the engines
themselves. A range is the one that Faceswap recommends.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "plugin_utils" / "faceswap_options.json"
ENGINES = {"upstream": "Faceswap", "builtin": "the built-in engine"}
BOOLEANS = {"1", "yes", "true", "on", "0", "no", "false", "off"}


def option_objections(
    words: Iterable[Any],
    engine: str,
    command: str,
    backend: str = "nvidia",
    variables: Mapping[str, str] | None = None,
    given: str = "",
) -> list[str]:
    """Sentences, each with its remedy, for what is wrong with an engine's options; an empty list if nothing is.

    `words` are arguments of `command` (extract, train, convert), which itself may be the first. `variables` names the
    role's variable for each option that the role sets, "" where it leaves no choice. `given` is the variable in which
    a user gave the words: these may not set what the role sets. Without `given` they are the role's own, and a
    sentence tells of the variable behind the option.
    """
    words = [str(word) for word in words]
    return list(_Options(engine, command, backend, variables or {}, given).objections(words))


def setting_objections(
    settings: Mapping[str, Any],
    engine: str,
    trainer: str,
    command: str = "train",
    variables: Mapping[str, str] | None = None,
    given: str = "faceswap_run_train_settings",
) -> list[str]:
    """Sentences for what is wrong with `settings`, {section: {setting: value}} of Faceswap's ini file of `command`.

    Faceswap itself drops a setting that it does not know, and takes its default for a value that is no choice of it.
    `variables` names the role's variable for settings (`section.setting`) that the role sets.
    """
    if not isinstance(settings, Mapping):
        return [f"{given} is not a mapping of sections: write {{section: {{setting: value}}}}."]
    if settings and engine != "upstream":
        return [f"{given} is for Faceswap, and {ENGINES[engine]} has no settings: leave it empty."]
    return list(_setting_objections(settings, trainer, command, variables or {}, given))


class FilterModule:
    """The filters, for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Their names and functions."""
        return {"option_objections": option_objections, "setting_objections": setting_objections}


@functools.cache
def contract() -> dict[str, Any]:
    """What the engines take; see tests/faceswap_contract.py for how it is made."""
    data: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return data


class _Options:
    """One command of one engine, against which words are held."""

    def __init__(self, engine: str, command: str, backend: str, variables: Mapping[str, str], given: str) -> None:
        self._engine, self._command, self._backend = engine, command, backend
        self._variables, self._given = variables, given
        self._options = _by_name(engine, command)
        self._moved: Mapping[str, str] = contract()["moved"][command]

    def objections(self, words: list[str]) -> Iterator[str]:
        """What is wrong with the words, one option after the other."""
        rest = words[1:] if words[:1] == [self._command] else words[:]
        while rest:
            word, *rest = rest
            if not _is_option(word):
                yield self._stray(word)
                continue
            name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            values = [value] if equals else []
            while rest and not equals and not _is_option(rest[0]) and self._takes_more(name, values):
                values.append(rest.pop(0))
            if sentence := self._objection(name, values):
                yield sentence[0].upper() + sentence[1:] if sentence.startswith("the ") else sentence
            if name not in self._options:  # whatever it would have taken is no error of its own
                rest = rest[next((i for i, other in enumerate(rest) if _is_option(other)), len(rest)) :]

    def _takes_more(self, name: str, values: list[str]) -> bool:
        option = self._options.get(name, {"takes": "nothing"})
        return option["takes"] != "nothing" and (option.get("many", False) or not values)

    def _objection(self, name: str, values: list[str]) -> str | None:
        where = f"{self._given}: " if self._given else ""
        option = self._options.get(name)
        if name in self._moved:
            return f"{where}{name} is the workshop's name of an option of {self._command}: {self._now(name)}."
        if option is None:
            return f"{where}{self._unknown(name)}."
        variable = self._variables.get(option["names"][0])
        if self._given and variable is not None:
            use = f"set {variable} instead" if variable else "leave it out"
            return f"{where}{name} of {self._command} is set by the role: {use}."
        if broken := _broken(self._command, option["names"], self._engine):
            return f"{where}{name} of {self._command} is refused, as {broken}: leave it out."
        if option.get("deprecated"):
            return f"{where}{name} of {self._command} is an old option that does nothing good today: leave it out."
        if option.get("backend", self._backend) != self._backend:
            return f"{where}{name} of {self._command} is for a GPU, and this host computes on its CPU: leave it out."
        subject = variable if variable and not self._given else f"{where}{name} of {self._command}"
        if option["takes"] != "nothing" and not values:
            return f"{subject} has no value: give it {_wanted(option)}."
        if option["takes"] == "nothing" and values:
            return f"{subject} takes no value, and was given '{values[0]}': leave that out."
        wrong = (said for value in values if (said := _wrong_value(option, value, ENGINES[self._engine])))
        return next((f"{subject} {said}" for said in wrong), None)

    def _now(self, name: str) -> str:
        """What to do instead of an option that moved since the workshop."""
        new = self._moved[name]
        if not new:
            return "there is none any more, leave it out"
        variable = self._variables.get(new)
        if variable == "":
            return "the role sets it, leave it out"
        return f"set {variable} instead" if variable else f"write {new} instead"

    def _unknown(self, name: str) -> str:
        if self._engine == "builtin" and name in _by_name("upstream", self._command):
            behind = self._variables.get(_by_name("upstream", self._command)[name]["names"][0])
            what = behind if behind and not self._given else f"{name} of {self._command}"
            return f"{what} is for Faceswap, and the built-in engine has no such option: leave it out"
        named = f"{ENGINES[self._engine]} has no option {name} for {self._command}"
        if not name.startswith("--") and len(name) > 2 and name[:2] in self._options:
            return f"{named}: if you mean {name[:2]}, write its value as a word of its own"
        return f"{named}: {_meant(name, self._options, 'mend it or leave it out')}"

    def _stray(self, word: str) -> str:
        where = f"{self._given}: " if self._given else ""
        name = word.partition("=")[0]
        if broken := _broken(self._command, [name], self._engine):
            return f"{where}{name} is refused, as {broken}: leave it out."
        return f"{where}'{word}' belongs to no option of {self._command}: leave it out, or put its option before it."


def _is_option(word: str) -> bool:
    """Whether it is an option and not the value of one: a negative number is none."""
    return word.startswith("-") and len(word) > 1 and not re.fullmatch(r"-\d+|-\d*\.\d+", word)


def _by_name(engine: str, command: str) -> dict[str, dict[str, Any]]:
    return {name: option for option in contract()["engines"][engine][command] for name in option["names"]}


def _broken(command: str, names: Sequence[str], engine: str) -> str | None:
    """Why an option that Faceswap takes is not to be used, None if it may be."""
    entries: list[dict[str, str]] = contract()["broken"] if engine == "upstream" else []
    return next((e["why"] for e in entries if e["command"] in (command, "*") and e["option"] in names), None)


def _meant(word: str, known: Iterable[str], otherwise: str) -> str:
    """The nearest of the known names, as a remedy."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"perhaps you mean {near[0]}" if near else otherwise


def _wanted(entry: Mapping[str, Any]) -> str:
    """What an option or a setting takes, in words."""
    if "choices" in entry:
        several = "one or more" if entry.get("many") else "one"
        return f"{several} of {', '.join(entry['choices'])}"
    if entry["takes"] == "bool":
        return "true or false"
    if entry["takes"] in ("text", "colour"):
        return {"text": "a text", "colour": "a colour such as #ff0000"}[entry["takes"]]
    number = "a whole number" if entry["takes"] == "int" else "a number"
    if "max" in entry:
        return f"{number} from {entry['min']} to {entry['max']}"
    return f"{number} of at least {entry['min']}" if "min" in entry else number


def _wrong_value(entry: Mapping[str, Any], value: Any, whose: str) -> str | None:
    """What is wrong with one value, None if nothing is; the end of a sentence whose subject is the option's name."""
    text = str(value)
    if "choices" in entry:
        fold = {"lower": str.lower, "upper": str.upper}.get(entry.get("case", ""), str)
        if fold(text) in entry["choices"]:
            return None
        near = difflib.get_close_matches(fold(text), entry["choices"], 1)
        take = f"take {near[0]}, or" if near else "choose"
        return f"is '{text}', which {whose} does not know: {take} {_wanted(entry)}."
    if entry["takes"] in ("int", "float"):
        try:
            number = int(text) if entry["takes"] == "int" else float(text)
            right = entry.get("min", number) <= number <= entry.get("max", number)
        except ValueError:
            right = False
        return None if right else f"is {text or 'empty'}, and must be {_wanted(entry)}: set it so."
    if entry["takes"] == "colour" and not re.fullmatch("#[0-9a-fA-F]{6}", text):
        return f"is {text or 'empty'}, and must be {_wanted(entry)}: set it so, in quotes."
    return None if text else "is empty: give it a value."


def _setting_objections(
    settings: Mapping[str, Any], trainer: str, command: str, variables: Mapping[str, str], given: str
) -> Iterator[str]:
    known: Mapping[str, Mapping[str, Mapping[str, Any]]] = contract()["settings"][command]
    model = f"model.{trainer.lower().replace('-', '_')}"
    for section, values in settings.items():
        if section not in known:
            remedy = _meant(str(section), known, f"choose one of {', '.join(known)}")
            yield f"{given}: Faceswap has no section {section} in {command}.ini: {remedy}."
        elif section.startswith("model.") and section != model:
            own = f"take {model}" if model in known else "leave it out"
            yield f"{given}: section {section} is not read by the trainer {trainer}: {own}, or choose that trainer."
        elif not isinstance(values, Mapping):
            yield f"{given}: section {section} is not a mapping: write {{setting: value}} below it."
        else:
            for name, value in values.items():
                if sentence := _setting_objection(known, section, str(name), value, variables):
                    yield f"{given}: {sentence}"


def _setting_objection(
    known: Mapping[str, Mapping[str, Mapping[str, Any]]],
    section: str,
    name: str,
    value: Any,
    variables: Mapping[str, str],
) -> str | None:
    if variable := variables.get(f"{section}.{name}"):
        return f"{name} of section {section} is set by the role: set {variable} instead."
    entry = known[section].get(name)
    if entry is None:
        homes = [other for other in known if name in known[other]]
        remedy = f"it stands in {homes[0]}" if homes else _meant(name, known[section], "mend it or leave it out")
        return f"section {section} has no setting {name}: {remedy}."
    if entry["takes"] == "bool":
        said = None if str(value).lower() in BOOLEANS else f"is {value}, and must be true or false: set it so."
    elif value is None or isinstance(value, bool | Mapping):
        said = f"is {value}, and must be {_wanted(entry)}: set it so, in quotes."
    elif entry.get("many"):
        items = value if isinstance(value, list) else re.split(r"[,\s]+", str(value).strip())
        said = next((wrong for item in items if (wrong := _wrong_choice(entry, item))), None)
    else:
        said = _wrong_choice(entry, value)
    return said and f"{name} of section {section} {said}"


def _wrong_choice(entry: Mapping[str, Any], value: Any) -> str | None:
    """As `_wrong_value`, but a setting's choices are the same in capitals and without."""
    if "choices" in entry and str(value).lower() in (choice.lower() for choice in entry["choices"]):
        return None
    return _wrong_value(entry, value, ENGINES["upstream"])

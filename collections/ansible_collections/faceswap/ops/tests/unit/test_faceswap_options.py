"""What is said of options and settings of an engine."""

from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.filter import faceswap_options
from ansible_collections.faceswap.ops.plugins.filter.faceswap_options import option_objections, setting_objections

TRAINERS = "dfaker, dfl-h128, dfl-sae, dlight, iae, lightweight, original, phaze-a, realface, unbalanced, villain"
VARIABLES = {"-b": "faceswap_run_batch_size", "-t": "faceswap_run_trainer", "-A": ""}
GIVEN = "faceswap_run_train_options"


def one(words: str, engine: str = "upstream", command: str = "train", **more: Any) -> str:
    """The only sentence said of the words, "" if none is."""
    said = option_objections(words.split(), engine, command, **more)
    assert len(said) < 2, said
    return "".join(said)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ""),
        ("train", "train -A a -B b -m model -t phaze-a -b 8 -s 250"),
        ("train", "--trainer=Original --batch-size 1 -d -w -c"),
        ("train", "-X 0 1"),
        ("extract", "-M vgg-clear unet-dfl -I t-face -r 45,90 -l 0.7 -a -g"),
        ("convert", "-S -5.5 -j 2 -L debug -f one.png two.png"),
    ],
)
def test_what_faceswap_takes_is_not_objected_to(command: str, words: str) -> None:
    assert one(words, command=command) == ""


SAID = {
    "train": {
        "--bach-size 8": "Faceswap has no option --bach-size for train: perhaps you mean --batch-size.",
        "--zzz x y": "Faceswap has no option --zzz for train: mend it or leave it out.",
        "-b16": "Faceswap has no option -b16 for train: if you mean -b, write its value as a word of its own.",
        "-t": f"-t of train has no value: give it one of {TRAINERS}.",
        "-t phase_a": f"-t of train is 'phase_a', which Faceswap does not know: take phaze-a, or one of {TRAINERS}.",
        "-b 0": "-b of train is 0, and must be a whole number from 1 to 256: set it so.",
        "-b 8.5": "-b of train is 8.5, and must be a whole number from 1 to 256: set it so.",
        "--batch-size=": "--batch-size of train is empty, and must be a whole number from 1 to 256: set it so.",
        "--no-warp=yes": "--no-warp of train takes no value, and was given 'yes': leave that out.",
        "-W yes": "'yes' belongs to no option of train: leave it out, or put its option before it.",
        "-b 8 16": "'16' belongs to no option of train: leave it out, or put its option before it.",
        "-p": "-p of train is refused, as it opens a preview window, and a host has no screen: leave it out.",
        "--preview": "--preview of train is refused, as it opens a preview window, and a host has no screen: leave "
        "it out.",
        "-bs 16": "-bs is the workshop's name of an option of train: write -b instead.",
        "-ps 100": "-ps is the workshop's name of an option of train: there is none any more, leave it out.",
        "KERAS_TORCH_DEVICE=CPU": "KERAS_TORCH_DEVICE is refused, as it is an environment variable, and set in "
        "capitals it makes Keras crash: leave it out.",
    },
    "extract": {
        "-M vgg-clear vgg-obscured": "-M of extract is 'vgg-obscured', which Faceswap does not know: take "
        "vgg-obstructed, or one or more of bisenet-fp, custom, unet-dfl, vgg-clear, vgg-obstructed.",
        "-l nan": "-l of extract is nan, and must be a number from 0.01 to 0.99: set it so.",
        "-K": "-K of extract is an old option that does nothing good today: leave it out.",
        "-X x": "-X of extract is x, and must be a whole number of at least 0: set it so.",
    },
    "convert": {
        "-k": "-k of convert is refused, as the frames that it keeps are written broken, with exit code 0: leave it "
        "out.",
    },
}


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [(command, words, said) for command, table in SAID.items() for words, said in table.items()],
)
def test_one_sentence_names_cause_and_remedy(command: str, words: str, sentence: str) -> None:
    assert one(words, command=command) == sentence


def test_a_gpus_options_are_refused_on_a_cpu() -> None:
    assert one("-d") == ""
    assert one("-d", backend="cpu") == "-d of train is for a GPU, and this host computes on its CPU: leave it out."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("-b 8", "-b of train is set by the role: set faceswap_run_batch_size instead."),
        ("--batch-size=8", "--batch-size of train is set by the role: set faceswap_run_batch_size instead."),
        ("-A faces", "-A of train is set by the role: leave it out."),
        ("-bs 8", "-bs is the workshop's name of an option of train: set faceswap_run_batch_size instead."),
        ("-z", "-z of train has no value: give it a text."),
    ],
)
def test_a_user_may_not_set_what_the_role_sets(words: str, sentence: str) -> None:
    assert one(words, variables=VARIABLES, given=GIVEN) == f"{GIVEN}: {sentence}"


def test_of_the_roles_own_words_the_variable_is_told() -> None:
    assert one("train -A a -b 900", variables=VARIABLES) == (
        "faceswap_run_batch_size is 900, and must be a whole number from 1 to 256: set it so."
    )


def test_the_built_in_engine_has_its_own_options() -> None:
    assert one("-t lightweight -b 4 -s 3 --seed 2", "builtin") == ""
    assert one("-t villain", "builtin", variables=VARIABLES) == (
        "faceswap_run_trainer is 'villain', which the built-in engine does not know: choose one of lightweight."
    )
    assert (
        one("-p", "builtin")
        == "-p of train is for Faceswap, and the built-in engine has no such option: leave it out."
    )
    assert one("-D mtcnn", "builtin", "extract", variables={"-D": "faceswap_run_detector"}) == (
        "faceswap_run_detector is for Faceswap, and the built-in engine has no such option: leave it out."
    )
    assert one("--sed 2", "builtin") == "The built-in engine has no option --sed for train: perhaps you mean --seed."


def test_each_wrong_option_has_a_sentence_of_its_own() -> None:
    assert len(option_objections(["-b", 0, "-p", "-t", "x", "--new", "a", "b", "-W"], "upstream", "train")) == 4


def settings(data: Any, trainer: str = "phaze-a", engine: str = "upstream", **more: Any) -> str:
    said = [
        sentence.removeprefix("faceswap_run_train_settings")
        for sentence in setting_objections(data, engine, trainer, **more)
    ]
    assert len(said) < 2, said
    return "".join(said)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"global.optimizer": {"learning_rate": 0.001, "optimizer": "AdamW", "save_optimizer": "always"}},
        {"global.optimizer": {"learning_rate": "1e-5"}, "global": {"mixed_precision": True, "nan_protection": "no"}},
        {"model.phaze_a": {"output_size": 64, "freeze_layers": ["encoder", "fc_a"], "load_layers": "encoder, fc_a"}},
        {"trainer.loader": {"num_processes": 1}, "trainer.augmentation": {"mask_color": "#00FF00"}},
    ],
)
def test_settings_that_faceswap_has_are_not_objected_to(data: dict[str, Any]) -> None:
    assert settings(data) == ""


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("x", " is not a mapping of sections: write {section: {setting: value}}."),
        ({"globl": {}}, ": Faceswap has no section globl in train.ini: perhaps you mean global."),
        ({"global": 5}, ": section global is not a mapping: write {setting: value} below it."),
        (
            {"global": {"learning_rate": 0.1}},
            ": section global has no setting learning_rate: it stands in global.optimizer.",
        ),
        ({"global": {"centring": "face"}}, ": section global has no setting centring: perhaps you mean centering."),
        (
            {"global": {"centering": "chin"}},
            ": centering of section global is 'chin', which Faceswap does not know: choose one of face, head, "
            "legacy.",
        ),
        (
            {"global": {"centering": None}},
            ": centering of section global is None, and must be one of face, head, legacy: set it so, in quotes.",
        ),
        (
            {"global.loss": {"mask_type": False}},
            ": mask_type of section global.loss is False, and must be one of",
        ),
        (
            {"global": {"mixed_precision": "maybe"}},
            ": mixed_precision of section global is maybe, and must be true or false: set it so.",
        ),
        (
            {"trainer.loader": {"num_processes": 0}},
            ": num_processes of section trainer.loader is 0, and must be a whole number from 1 to 32: set it so.",
        ),
        (
            {"trainer.augmentation": {"mask_color": "red"}},
            ": mask_color of section trainer.augmentation is red, and must be a colour such as #ff0000: "
            "set it so, in quotes.",
        ),
        (
            {"model.phaze_a": {"freeze_layers": "encoder nose"}},
            ": freeze_layers of section model.phaze_a is 'nose', which Faceswap does not know: choose one or more of",
        ),
        (
            {"model.villain": {"lowmem": True}},
            ": section model.villain is not read by the trainer phaze-a: take model.phaze_a, or choose that trainer.",
        ),
    ],
)
def test_one_sentence_tells_of_a_setting(data: Any, sentence: str) -> None:
    assert settings(data).startswith(sentence)


def test_a_setting_that_the_role_sets_has_its_variable() -> None:
    variables = {"global.mixed_precision": "faceswap_run_mixed_precision"}
    assert settings({"global": {"mixed_precision": True}}, variables=variables) == (
        ": mixed_precision of section global is set by the role: set faceswap_run_mixed_precision instead."
    )


def test_a_trainer_without_a_section_reads_none() -> None:
    assert settings({"model.original": {"lowmem": True}}, "iae") == (
        ": section model.original is not read by the trainer iae: leave it out, or choose that trainer."
    )


def test_the_built_in_engine_has_no_settings() -> None:
    assert settings({"global": {}}, engine="builtin") == (
        " is for Faceswap, and the built-in engine has no settings: leave it empty."
    )
    assert settings({}, engine="builtin") == ""


def test_every_default_is_taken() -> None:
    """The data speaks one language with what judges it."""
    data = faceswap_options.contract()
    for command, sections in data["settings"].items():
        for section, entries in sections.items():
            trainer = section.removeprefix("model.").replace("_", "-")
            defaults = {section: {name: entry["default"] for name, entry in entries.items()}}
            assert setting_objections(defaults, "upstream", trainer, command) == []
    for engine, commands in data["engines"].items():
        for command, options in commands.items():
            for option in options:
                for default in (option[key] for key in ("default", "default_cpu") if key in option):
                    assert option_objections([option["names"][0], default], engine, command) == []

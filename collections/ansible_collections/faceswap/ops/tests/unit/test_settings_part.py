"""What a model can go on with, and what begins a new one."""

from ansible_collections.faceswap.ops.plugins.filter.settings_part import settings_part

SETTINGS = {
    "global": {"coverage": 87.5, "mixed_precision": True},
    "global.optimizer": {"learning_rate": 0.0001, "optimizer": "adamw"},
    "trainer.loader": {"num_processes": 2},
    "model.phaze_a": {"output_size": 64},
    "model.unheard_of": {"size": 1},
}


def test_each_setting_is_in_one_part() -> None:
    assert settings_part(SETTINGS, "updatable") == {
        "global": {"mixed_precision": True},
        "global.optimizer": {"learning_rate": 0.0001},
        "trainer.loader": {"num_processes": 2},
    }
    assert settings_part(SETTINGS, "fixed") == {
        "global": {"coverage": 87.5},
        "global.optimizer": {"optimizer": "adamw"},
        "model.phaze_a": {"output_size": 64},
        "model.unheard_of": {"size": 1},
    }

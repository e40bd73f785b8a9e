"""The configuration of a training run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hggdp_plugin.training.config import OFF, Augmentation, ConfigError, TrainConfig


def config(**changes):
    return TrainConfig(**{"data": ["a.npy"], "output": "p.safetensors", **changes})


def test_what_is_switched_off_is_off():
    assert Augmentation().without(["zoom", "phase"]) == Augmentation(zoom=1.0, phase=False)
    assert Augmentation.broad().without(OFF) == Augmentation(**OFF)
    assert OFF.keys() == vars(Augmentation()).keys()


@pytest.mark.parametrize(
    "one",
    [
        config(),
        config(
            data=["a", Path("b.h5")],
            validation=["c.npy"],
            init="brain-t2",
            init_weight=0.4,
            widths=[8, 16],
            domain_weights={"knee": 0.5},
            augmentation=Augmentation.broad(),
            max_time=60.0,
            devices=2,
        ),
    ],
)
def test_json_holds_everything(one):
    assert TrainConfig.from_json(one.to_json()) == one


def test_json_that_lacks_fields_has_the_defaults():
    values = json.loads(config().to_json())
    del values["warmup"], values["augmentation"]
    assert TrainConfig.from_json(json.dumps(values)) == config()


def test_json_of_a_later_version_is_refused():
    values = json.loads(config().to_json())
    with pytest.raises(ConfigError, match="tomorrow=1: this version does not know it"):
        TrainConfig.from_json(json.dumps({**values, "tomorrow": 1}))


def test_paths_and_sequences_are_normalized():
    one = config(widths=[8, 16], validation=["c.npy"])
    assert (one.widths, one.validation, one.output) == ((8, 16), (Path("c.npy"),), Path("p.safetensors"))
    assert one.run_folder == Path("p.safetensors.run")


def test_the_course_is_what_may_not_change():
    one = config()
    assert replace(one, steps=3, output="q.safetensors", max_time=3.0).course() == one.course()
    assert replace(one, data=["elsewhere/a.npy"]).course() == one.course()
    for change in ({"learning_rate": 1.0}, {"data": ["b.npy"]}, {"augmentation": Augmentation(zoom=1.0)}):
        assert replace(one, **change).course() != one.course()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps=0: too small"),
        ({"blocks": 0}, "blocks=0: too small"),
        ({"phase_resolution": -1}, "phase_resolution=-1: too small"),
        ({"init_weight": 1.5}, "init_weight=1.5: out of range"),
        ({"init_weight": 0.5}, "init_weight=0.5: there is nothing to average with"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: out of range"),
        ({"devices": 0}, "devices=0: not a number of devices"),
        ({"domain_weights": {"a": -1.0}}, "a weight is negative"),
        ({"architecture": "vit"}, "architecture='vit': unknown; choose from unet, refinenet"),
        ({"widths": ()}, "a width is too small"),
        ({"architecture": "refinenet", "widths": (4, 12)}, "refinenet takes one number"),
        ({"output": "p.pth"}, "not a .safetensors file"),
        ({"output": "no-such-folder/p.safetensors"}, "in a folder that exists"),
    ],
)
def test_unusable_values_are_refused(change, said):
    with pytest.raises(ConfigError) as error:
        config(**change)
    assert said in str(error.value)
    assert error.value.name in str(error.value)

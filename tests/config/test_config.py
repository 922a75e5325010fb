"""A config is strict: each error names the dotted path, the value and what would be right, and a round trip changes nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers import ROOT

from nowcast import config
from nowcast.config.schema import Experiment
from nowcast.errors import UsageError
from nowcast.training.experiment import resolve

MINIMAL = """
[transform]
name = "log"
[model]
name = "encoder_forecaster"
[loss]
name = "mse"
[training]
steps = 5
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_committed_config_reads_resolves_and_survives_a_round_trip(path, tmp_path):
    resolved = resolve(config.read(path))
    again = tmp_path / "config.toml"
    again.write_text(config.write(resolved))
    assert config.read(again) == resolved
    assert resolve(config.read(again)) == resolved


ERRORS = {
    "training.stepss=3": "unknown key training.stepss; did you mean steps?",
    "data.crp=3": "unknown key data.crp; did you mean crop?",
    "data.splits.fractionss=[1]": "unknown key data.splits.fractionss; did you mean fractions?",
    "trainin.x=1": "unknown section [trainin]; did you mean [training]?",
    "training.steps=true": "training.steps = True: it should be a valid integer",
    "training.steps=1.5": "training.steps = 1.5: it should be a valid integer",
    "training.learning_rate=true": "training.learning_rate = True: it should be a valid number",
    "training.learning_rate='1e-3'": "training.learning_rate = '1e-3': it should be a valid number",
    "training.learning_rate=nan": "training.learning_rate = nan: it should be a finite number",
    "training.learning_rate=0": "training.learning_rate = 0: it should be greater than 0",
    "training.workers=-1": "training.workers = -1: it should be 'auto', or should be greater than or equal to 0",
    "training.betas=[0.9, 1.0]": "training.betas.1 = 1.0: it should be less than 1",
    "training.betas=[-0.5, 0.9]": "training.betas.0 = -0.5: it should be greater than or equal to 0",
    "training.betas=[0.9]": "training.betas.1 is missing: the list is too short",
    "training.betas=[0, 0, 0]": "training.betas = (0, 0, 0): it should have at most 2 items, not 3",
    "data.splits.test=[['2020-01-01', 2020-02-01]]": "it should be a date, with or without a time, and without quotes",
    "data.splits.test=[[12:00:00, 13:00:00]]": "data.splits.test.0.0 = 12:00:00: it should be a date, with or without a time",
    "data.splits.test=[2020-01-01]": "data.splits.test.0 = 2020-01-01: it should be a list in square brackets",
    "data.augmentation=flips": "data.augmentation = 'flips': it should be a list in square brackets",
    "data.splits.fractions=[0.5, 0.5]": "data.splits.fractions.2 is missing: the list is too short",
    "training.epochs=2": "training: give either steps or epochs (the other one 0)",
    "data.augmentation=['flip']": "data.augmentation.0 = 'flip': it should be 'flips' or 'rotations'",
    "data.time_step=soon": "data.time_step = 'soon': it should be 'auto'",
    "data.splits.fractions=[1, 1, 1]": "data.splits: fractions [1, 1, 1] must be three numbers of at least 0 with sum 1",
    "data.splits.by=spans": 'data.splits: by = "spans" needs training',
    "data.splits={by='days', every_days=5}": "data.splits: there is no day 6: every_days = 5 numbers them 0 to 4",
    "data.splits={by='days', test_days=[6, 4]}": "data.splits: day 4 is listed twice: a day belongs to one split",
    "data.splits={by='days', training_days=[]}": 'data.splits: by = "days" needs training_days',
    "data.splits.every_days=1": "data.splits.every_days = 1: it should be greater than or equal to 2",
    "transform.name=3": "transform.name = 3: it should be a valid string",
    "training=3": "write SECTION.KEY=VALUE",
    "steps=3": "write SECTION.KEY=VALUE",
    "training.steps.more=3": "steps is a value, not a section",
}


@pytest.mark.parametrize("setting", ERRORS)
def test_a_wrong_setting_is_one_line_with_the_dotted_path(minimal, setting):
    with pytest.raises(UsageError) as caught:
        config.read(minimal, [setting])
    assert ERRORS[setting] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


NAMED_ERRORS = [
    (["model.name=encoder_forcaster"], "model.name = 'encoder_forcaster' is not known; did you mean encoder_forecaster?"),
    (["model.hiden_channels=[3]"], "unknown key model.hiden_channels; did you mean hidden_channels?"),
    (["model.hidden_channels=[64]"], "model: 1 hidden_channels need 1 kernel_sizes, not 2"),
    (["model.kernel_sizes=[3, 4]"], "model: kernel_sizes must be odd, not 4"),
    (["model.hidden_channels=[64, 100000]"], "model.hidden_channels.1 = 100000: it should be less than or equal to 4096"),
    (["transform.offset=0"], "transform.offset = 0: it should be greater than 0"),
    (["transform.name=dbz", "transform.floor=60"], "transform: floor 60 dBZ must be below ceiling 55.0 dBZ"),
    (["loss.name=balanced", "loss.weights=[1, 2]"], "loss: 5 thresholds need 6 weights"),
    (["loss.name=balanced", "loss.thresholds=[5, 2, 10, 30, 60]"], "loss: thresholds must ascend"),
    (["loss.name=exceedance", "loss.thresholds=[5, 2]", "loss.weights=[1, 1]"], "loss: thresholds must ascend"),
    (["loss.name=balanced", "loss.thresholds=[0.5, 2, 2, 10, 30]"], "the one before it and the first above 0, not [0.5, 2, 2,"),
    (["loss.name=balanced", "loss.thresholds=[0, 2, 5, 10, 30]"], "loss: thresholds must ascend"),
    (["loss.name=balanced", "loss.weights=[1, 1, -2, 5, 10, 30]"], "loss.weights.2 = -2: it should be greater than or equal"),
    (["loss.name=balanced", "loss.weights=[0, 0, 0, 0, 0, 0]"], "loss: weights are all 0: every forecast would have"),
    (["loss.name=balanced", "loss.mse=0", "loss.mae=0"], "loss: mse and mae are both 0: every forecast would have the loss 0"),
    (["loss.name=exceedance", "loss.thresholds=[-2, 5]", "loss.weights=[1, 1]"], "loss: thresholds must ascend"),
    (["loss.name=exceedance", "loss.thresholds=[2, 5]", "loss.weights=[0, 0.0]"], "loss: weights are all 0"),
    (["loss.name=exceedance", "loss.thresholds=[2, 5]", "loss.weights=[1, -1]"], "loss.weights.1 = -1"),
    (["loss.name=relative_exceedance", "loss.thresholds=[2, 2]"], "loss: thresholds must ascend"),
    (["loss.name=exceedance", "loss.thresholds=[2, 5]", "loss.weights=[1]"], "loss: 2 thresholds need as many weights"),
    (["loss.name=relative_exceedance", "loss.thresholds=[5, 2]"], "loss: thresholds must ascend"),
    (
        ["model.name=next_frame", 'model.head="hidden"', "model.patch=4"],
        'model: head = "hidden" needs 16 hidden_channels in the last layer (patch²)',
    ),
    (
        ["model.name=next_frame", "model.scheduled_sampling=0.5", "model.batch_norm=true"],
        'model: scheduled_sampling needs supervise = "all" and batch_norm = false',
    ),
    (["model.name=fc_lstm", "model.grid=[512, 129]"], "model: grid [512, 129] must have 1 to 65536 cells"),
    (["loss.name=huber"], "loss.name = 'huber' is not known; known: balanced, bce, exceedance, mae, mse"),
]


@pytest.mark.parametrize(("settings", "message"), NAMED_ERRORS)
def test_a_named_section_is_checked_by_its_owner(minimal, settings, message):
    with pytest.raises(UsageError) as caught:
        resolve(config.read(minimal, settings))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"no such config: .*absent\.toml"):
        config.read(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[data\n")
    with pytest.raises(UsageError, match="is not valid TOML"):
        config.read(broken)
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot read the config"):
        config.read(broken)
    broken.write_text("[training]\nsteps = 5\n")
    with pytest.raises(
        UsageError,
        match=r"transform is missing; configs are complete: copy it from a config with all keys, such as configs/radar\.toml$",
    ):
        config.read(broken)


def test_a_setting_of_a_bare_word_is_a_string_and_of_toml_its_value(minimal):
    experiment = config.read(minimal, ["data.variable=rain", "data.records=['a.nc', 'b.nc']", "training.learning_rate=1e-3"])
    assert experiment.data.variable == "rain"
    assert experiment.data.records == ("a.nc", "b.nc")
    assert experiment.training.learning_rate == 1e-3


@given(
    steps=st.integers(1, 10**6),
    rate=st.floats(1e-8, 10),
    crop=st.integers(0, 4096),
    by=st.sampled_from(["fractions", "events"]),
    start=st.datetimes(timezones=st.none()).map(lambda t: t.replace(microsecond=0)),
)
def test_any_experiment_survives_toml_and_json(tmp_path_factory, steps, rate, crop, by, start):
    tree = {
        "data": {"crop": crop, "splits": {"by": by, "training": [[start, start]]}},
        "transform": {"name": "log"},
        "model": {"name": "encoder_forecaster", "hidden_channels": [3]},
        "loss": {"name": "mse"},
        "training": {"steps": steps, "learning_rate": rate},
    }
    experiment = config.check(Experiment, tree)
    path = tmp_path_factory.mktemp("config") / "run.toml"
    path.write_text(config.write(experiment))
    assert config.read(path) == experiment
    assert config.from_dict(config.as_dict(experiment), source="test") == experiment


def test_a_time_with_a_zone_is_turned_into_utc_whatever_the_zone_here(minimal, monkeypatch):
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        spans = "data.splits.training=[[2021-05-01T00:00:00+02:00, 2021-05-02T00:00:00Z]]"
        (span,) = config.read(minimal, ["data.splits.by=spans", spans]).data.splits.training
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [str(moment) for moment in span] == ["2021-04-30 22:00:00", "2021-05-02 00:00:00"]

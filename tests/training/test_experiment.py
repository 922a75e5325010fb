"""Parts of an experiment that do not fit together are refused before any data are read, with exit code 2."""

import pytest
from makers import ROOT, command, expect, rain, tiny_experiment, write_record

from nowcast import config
from nowcast.dataset.archive import open_archive
from nowcast.errors import UsageError
from nowcast.training.experiment import resolve, without_effect


def with_parts(**changed):
    """The tiny experiment with other keys of [model] and [loss]; its record does not exist."""
    return config.from_dict(config.as_dict(tiny_experiment(["absent.nc"])) | changed, source="test")


LINEAR = r"config: loss\.name = 'bce' takes values from 0 to 1: model\.output = 'sigmoid', not 'linear'"


@pytest.mark.parametrize("model", ["encoder_forecaster", "many_to_many", "convgru", "cnn_lstm"])
def test_a_cross_entropy_of_unlimited_values_is_refused(model):
    with pytest.raises(UsageError, match=rf"^{LINEAR}$"):
        resolve(with_parts(model={"name": model}, loss={"name": "bce"}))
    resolve(with_parts(model={"name": model, "output": "sigmoid"}, loss={"name": "bce"}))
    resolve(with_parts(model={"name": "next_frame"}, loss={"name": "bce"}))  # whose output is a sigmoid by default


@pytest.mark.parametrize("further", [(), ("--dry-run",)])
def test_no_data_are_read_before(workplace, further):
    (workplace / "tiny.toml").write_text(config.write(with_parts(loss={"name": "bce"})))
    expect(2, "train", "tiny.toml", "--output", "run", *further, says=LINEAR)


def test_rotations_that_have_no_effect_are_told_once(workplace):
    """The cells of 24 × 28 are no square, which a quarter turn would leave as it is."""
    record = write_record("rain.nc", rain(frames=40, shape=(24, 28)))
    tree = config.as_dict(tiny_experiment([record], steps=1))
    train, warning = ("train", "tiny.toml", "--output", "run"), "rotations have no effect on whole grids of 24 × 28 cells"
    for crop, augmentation, told in ((0, ["rotations"], 1), (16, ["rotations"], 0), (0, ["flips"], 0)):
        data = tree["data"] | {"crop": crop, "augmentation": augmentation}
        (workplace / "tiny.toml").write_text(config.write(config.from_dict(tree | {"data": data}, source="test")))
        code, _, err = command(*train, "--dry-run")
        assert (code, err.count(warning)) == (0, told)
    (workplace / "tiny.toml").write_text(
        config.write(config.from_dict(tree | {"data": data | {"augmentation": ["rotations"]}}, source="test"))
    )
    code, _, err = command(*train)
    assert (code, err.count(warning), (workplace / "run" / "log.txt").read_text().count(warning)) == (0, 1, 1)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The archives of a record of forty frames: with validation windows, and without."""
    record = write_record(tmp_path_factory.mktemp("radar") / "rain.nc", rain(frames=40, shape=(24, 28)))
    data = tiny_experiment([record]).data
    everything = data.model_copy(update={"splits": data.splits.model_copy(update={"fractions": (1.0, 0.0, 0.0)})})
    return {True: open_archive(data), False: open_archive(everything)}


NEXT_FRAME = {"name": "next_frame", "hidden_channels": [1], "kernel_sizes": [1]}
DAY = [["2020-06-01T00:00:00", "2020-06-02T00:00:00"]]
BESIDE = {  # what is told -> section, keys and values, and the keys beside which they are read (None: of another model)
    'data.splits.validation has no effect: only data.splits.by = "spans" would read it':
        ("data.splits", {"validation": DAY}, {"by": "spans", "training": DAY}),
    'data.splits.test_records has no effect: only data.splits.by = "records" would read it':
        ("data.splits", {"test_records": ["a.nc"]}, {"by": "records"}),
    'data.splits.every_days, data.splits.test_days have no effect: only data.splits.by = "days" would read them':
        ("data.splits", {"every_days": 9, "test_days": [8]}, {"by": "days"}),
    'data.splits.fractions has no effect: only data.splits.by = "fractions" or data.splits.by = "events" would read it':
        ("data.splits", {"fractions": [0.6, 0.4, 0.0], "by": "days"}, {"by": "events"}),
    "data.kept_crop has no effect: only a model that takes guidance would read it":
        ("data", {"kept_crop": 20}, None),
    'training.decay_factor has no effect: only training.schedule = "decay" would read it':
        ("training", {"decay_factor": 0.5}, {"schedule": "decay"}),
    'training.plateau_patience, training.plateau_delta have no effect: only training.schedule = "plateau" would read them':
        ("training", {"plateau_patience": 2, "plateau_delta": 0.1}, {"schedule": "plateau"}),
    "training.betas, first value, has no effect: only adamw, adam or sgd would read it":
        ("training", {"betas": [0.5, 0.9], "optimizer": "rmsprop"}, {"optimizer": "adam"}),
    "training.betas, second value, has no effect: only another optimizer than sgd would read it":
        ("training", {"betas": [0.5, 0.9], "optimizer": "sgd"}, {"optimizer": "adam"}),
    "model.last_norm has no effect: only model.batch_norm = true would read it":
        ("model", NEXT_FRAME | {"last_norm": True, "batch_norm": False}, {"batch_norm": True}),
    'model.forget_bias has no effect: only model.initial = "keras" would read it':
        ("model", NEXT_FRAME | {"forget_bias": 0.5, "initial": "torch"}, {"initial": "keras"}),
    'model.head_kernel has no effect: only model.head = "conv3d" or "conv2d" would read it':
        ("model", NEXT_FRAME | {"head_kernel": 1, "head": "hidden"}, {"head": "conv2d"}),
}  # fmt: skip


@pytest.mark.parametrize("told", BESIDE)
def test_a_key_that_nothing_reads_is_told(archive, told):
    """Only where it is changed: a config holds every key."""
    section, keys, beside = BESIDE[told]
    assert warnings_of(archive[True], section, {}) == []
    assert warnings_of(archive[True], section, keys) == [told]
    if beside is not None:
        assert warnings_of(archive[True], section, keys | beside) == []


@pytest.mark.parametrize(("keys", "told"), [
    ({"early_stopping": 2}, "training.early_stopping has no effect without validation windows: the training runs to its last"),
    ({"schedule": "plateau"}, 'training.schedule = "plateau" has no effect without validation windows: the learning rate'),
])  # fmt: skip
def test_what_needs_validation_windows_is_told_where_there_are_none(archive, keys, told):
    assert warnings_of(archive[True], "training", keys) == []
    (warning,) = warnings_of(archive[False], "training", keys)
    assert warning.startswith(told)


@pytest.mark.parametrize("key", ["zr_a", "zr_b"])
def test_a_relation_without_reflectivity_is_told(archive, tmp_path, key):
    told = ["data.zr_a and data.zr_b have no effect: no record holds reflectivity"]
    assert warnings_of(archive[True], "data", {key: 1.5}) == told
    record = write_record(tmp_path / "dbz.nc", 20 * rain(frames=40, shape=(24, 28)), units="dBZ")
    assert warnings_of(open_archive(tiny_experiment([record]).data), "data", {key: 1.5}) == []


@pytest.mark.parametrize(("length", "steps"), [({"steps": 6}, 6), ({"steps": 0, "epochs": 2}, 20)])  # 20 windows, 2 a batch
def test_a_schedule_that_never_begins_is_told(archive, length, steps):
    """It begins after the warm-up; --set training.steps may leave a training that is shorter."""
    what = "the learning rate rises over training.warmup_steps ="
    told = f'training.schedule = "cosine" has no effect: {what} {steps}, and the training has {steps}'
    assert warnings_of(archive[True], "training", length | {"warmup_steps": steps}) == [told]
    assert warnings_of(archive[True], "training", length | {"warmup_steps": steps - 1}) == []
    assert warnings_of(archive[True], "training", length | {"warmup_steps": steps, "schedule": "constant"}) == []


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_the_configs_hold_no_key_that_nothing_reads(archive, path):
    """But for two that depend on the records, which here are no squares and no reflectivity."""
    lines = without_effect(resolve(config.read(path)), archive[True])
    assert [line for line in lines if "rotations" not in line and "zr_a" not in line] == []


def warnings_of(archive, section, keys):
    tree = config.as_dict(tiny_experiment(["rain.nc"]))
    tree["data"]["splits"]["fractions"] = [0.75, 0.25, 0.0]  # the default
    *above, last = section.split(".")
    inner = tree[above[0]] if above else tree
    inner[last] = keys if "name" in keys else inner[last] | keys
    return without_effect(resolve(config.from_dict(tree, source="test")), archive)

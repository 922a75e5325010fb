"""scripts/skill/services.py leaves services out and keeps what is done; its averages, ratios and goals equal those by hand."""

import json
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import record as skill_record
import services as skill
import table as skill_table
import tomli_w
from makers import command, rain, tiny_experiment, write_record

from nowcast import config
from nowcast.errors import CheckpointError, DataError, NowcastError, UsageError
from nowcast.evaluation.evaluate import evaluate
from nowcast.forecasters.baselines import BASELINES, Extrapolation, Persistence, available
from nowcast.models.checkpoint import BEST, LAST, read_checkpoint
from nowcast.netcdf.opening import open_records
from nowcast.prediction.cases import Selection

pytestmark = pytest.mark.slow  # all of them together take seconds

FOLDS = {"A": ("north",), "B": ("south",)}


class Halved(Persistence):
    """In the place of what pysteps makes, which may not be installed and takes seconds to import."""

    def forecast_case(self, past, num_leads):
        return super().forecast_case(past, num_leads) / 2


@pytest.fixture
def quick(monkeypatch):
    """Baselines that take no time, services of our own, and commands that run in this process."""
    for name in skill_record.KEPT:
        monkeypatch.setitem(BASELINES, name, Halved)
    monkeypatch.setattr(skill_record, "write_dataset", lambda dataset, path: path.touch())  # half of the time, and not read
    monkeypatch.setattr(skill, "FOLDS", FOLDS)
    monkeypatch.setattr(skill, "run_all", lambda commands, jobs: [run_here(words) for words in commands])


def run_here(words):
    code, _, err = command(*words[3:]) if words[1] == "-m" else (skill_record.main(words[2:]), None, None)
    assert not code, err


@pytest.fixture
def radar(tmp_path):
    """Two services: one with a long and a short record, one with a long one."""
    for name, frames, seed in (("north/long", 12, 0), ("north/short", 6, 1), ("south/rain", 14, 2)):
        path = tmp_path / "radar" / f"{name}.nc"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, rain(frames=frames, shape=(20, 24), seed=seed))
    return tmp_path / "radar"


@pytest.fixture
def options(tmp_path, radar):
    """What is given on the command line: 4 frames in and 3 out, four steps."""
    tree = config.as_dict(tiny_experiment([], steps=4, validate_every=2))
    tree["data"] |= {"input_frames": 4, "lead_frames": 3}
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(tree))
    given = [
        "--config",
        tmp_path / "tiny.toml",
        "--radar",
        radar,
        "--output",
        tmp_path / "out",
        "--device",
        "cpu",
        "--starts",
        3,
    ]
    return [str(word) for word in given]


def work(options, *more):
    return skill.work(skill.parse([*options, *more]))


def test_the_folds_are_disjoint_and_have_every_service(shared):
    services = [service for fold in skill.FOLDS.values() for service in fold]
    assert len(services) == len(set(services))
    folders = {path.name for path in (shared / "radar").iterdir() if path.is_dir()}
    assert set(services) == folders - {"raw"}


@pytest.mark.parametrize("fold", skill.FOLDS)
def test_no_record_of_a_fold_is_in_its_training(shared, fold):
    data = config.read(skill.ROOT / "configs" / "radar.toml").data
    used, left_out = skill.training_records(shared / "radar", fold, data)
    assert not {path.parent.name for path in [*used, *left_out]} & set(skill.FOLDS[fold])
    too_short = {"dwd/ry_20200101_dry", "dwd/yw_20170816", "meteofrance/nw_201608_gappy", "meteofrance/se_201608_gappy",
                 "opera/cirrus_20241126_alps_germany"}  # fmt: skip
    assert {f"{path.parent.name}/{path.stem}" for path in left_out} <= too_short


def test_the_watched_records_are_there(shared):
    assert all((shared / "radar" / f"{name}.nc").is_file() for name in skill_table.NEARLY_DRY)


def test_folds_are_trained_without_their_service_then_scored_and_kept(quick, options, tmp_path, capsys):
    text = work(options)
    out = tmp_path / "out"
    for fold, other in (("A", "rain"), ("B", "long")):
        facts = read_checkpoint(out / f"fold_{fold}" / BEST).metadata
        assert {name for split in facts["spans"].values() for name, *_ in split} == {other}
        assert len(config.read(out / f"fold_{fold}" / "config.toml").data.records) == 1
    told = capsys.readouterr().err
    assert "fold B: not trained on north/short, too short for 4 + 3 frames" in told
    assert "fold A: not trained" not in told
    assert "| south/rain | B | fold_B | 3 × 3 | 5 | no |" in text
    assert "| north/short | A | fold_A | 1 × 2 | 5 | no |" in text
    assert (out / "skill.md").read_text() == text
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and not path.name.startswith("skill.")}
    assert work(options) == text
    assert {path: path.stat().st_mtime_ns for path in before} == before


# "last": what a run that is killed in its last validation leaves
@pytest.mark.parametrize(("lost", "how"), [("last", "--resume"), ("*", "--overwrite")])
def test_a_training_that_was_interrupted_ends_as_if_it_had_not_been(quick, options, tmp_path, lost, how):
    work(options, "--folds", "A", "--only", "train")
    run = tmp_path / "out" / "fold_A"
    whole = read_checkpoint(run / LAST).digest
    for path in run.glob(f"{lost}.safetensors"):
        path.unlink()
    assert skill.training_command(skill.parse(options), "A")[-1] == how
    work(options, "--folds", "A", "--only", "train")
    assert read_checkpoint(run / LAST).digest == whole
    assert skill.training_command(skill.parse(options), "A") is None


def test_a_network_brought_from_elsewhere_is_used_as_it_is(quick, options, tmp_path):
    work(options, "--folds", "A", "--only", "train")
    for name in ("last", "previous"):
        (tmp_path / "out" / "fold_A" / f"{name}.safetensors").unlink()
    assert skill.training_command(skill.parse(options), "A") is None


@pytest.mark.parametrize("setting", ["training.learning_rate=0.5", "model.hidden_channels=[6]"])
def test_a_fold_of_another_config_is_refused(quick, options, setting):
    work(options, "--folds", "A", "--only", "train")
    with pytest.raises(CheckpointError, match=f"fold_A was trained with another config: {setting.split('=')[0]}"):
        work(options, "--folds", "A", "--set", setting)


def test_a_fold_of_other_records_is_refused(quick, options, radar):
    work(options, "--folds", "A", "--only", "train")
    write_record(radar / "south" / "more.nc", rain(frames=14, shape=(20, 24)))
    with pytest.raises(CheckpointError, match=r"data\.records = south/more, south/rain \(there: south/rain\)"):
        work(options, "--folds", "A")


def test_a_setting_may_name_the_fold(quick, options, tmp_path):
    words = skill.training_command(skill.parse([*options, "--set", "training.start_from=runs/{fold}/x"]), "B")
    assert words[words.index("--set") + 1] == "training.start_from=runs/B/x"


def test_a_service_without_records_is_an_error(quick, options, radar):
    (radar / "south" / "rain.nc").unlink()
    with pytest.raises(DataError, match="no records of south"):
        work(options, "--folds", "A", "--only", "train")


def test_nothing_is_scored_before_it_is_trained(quick, options):
    with pytest.raises(CheckpointError, match="no trained network: run `--only train` first"):
        work(options, "--only", "evaluate")


def test_one_network_is_scored_on_all_folds_and_the_table_says_what_it_has_seen(quick, options, tmp_path):
    work(options, "--folds", "A", "--only", "train")
    scored = [*options[:4], "--output", str(tmp_path / "other"), "--starts", "2", "--network", str(tmp_path / "out" / "fold_A")]
    text = work(scored)
    assert "**The network was trained or validated on records of south:" in text
    assert "| south/rain | B | fold_A | 2 × 3 | 5 | yes |" in text
    assert " | met |" not in text
    assert not list((tmp_path / "other").rglob("*.safetensors"))
    with pytest.raises(UsageError, match="give another --output"):
        work(options, "--folds", "A", "--only", "evaluate", "--network", "extrapolation")


def test_extrapolation_is_as_good_as_itself(quick, options, tmp_path):
    work(options, "--network", "extrapolation")
    found = json.loads((tmp_path / "out" / "skill.json").read_text())
    assert found["mean_of_ratios_and_ratio_of_means"]["extrapolation"]["CSI≥1"] == [1, 1]
    goal = next(goal for goal in found["goals"] if goal["goal"].startswith("no service lost"))
    assert (goal["found"], goal["result"]) == ("lowest 1.000", "met")


def test_a_network_that_refuses_a_record_is_written_down(quick, options, tmp_path):
    work(options, "--folds", "A", "--only", "train")
    for service, minutes in (("north", 5), ("south", 7)):
        (tmp_path / "seven" / service).mkdir(parents=True)
        path = tmp_path / "seven" / service / "rain.nc"
        write_record(path, rain(frames=14, shape=(20, 24)), step_minutes=minutes)
    given = ["--radar", str(tmp_path / "seven"), "--output", str(tmp_path / "other"), "--starts", "1"]
    text = work([*given, "--network", str(tmp_path / "out" / "fold_A")])
    assert "Not forecast: south/rain, since rain has a time step of 7 min but 'fold_A' was trained on 5 min" in text
    assert "| south/rain | B | not forecast |" in text
    assert " | met |" not in text


def one(path, fields, **facts):
    (record,) = open_records([write_record(path, fields, **facts)])
    return record


def test_starts_are_spread_evenly_over_those_that_are_complete(tmp_path):
    record = one(tmp_path / "a.nc", rain(frames=30))
    cases = skill_record.choose_cases(record, record.time_step, starts=4)
    positions = [int(np.flatnonzero(record.times == reference)[0]) for reference in cases.references]
    assert positions == [3, 8, 12, 17]  # of 3 to 17
    assert cases.num_leads == 12


def test_a_short_record_has_as_many_leads_as_its_longest_stretch(tmp_path):
    times = np.datetime64("2020-06-01T00:00:00") + np.timedelta64(300, "s") * np.array([*range(9), *range(20, 27)])
    record = one(tmp_path / "a.nc", rain(frames=16), times=times)
    cases = skill_record.choose_cases(record, record.time_step)
    assert (cases.num_leads, cases.references) == (5, (times[3],))


def test_a_frame_without_anything_known_is_no_past_frame(tmp_path):
    fields = rain(frames=18)
    fields[0] = np.nan
    record = one(tmp_path / "a.nc", fields)
    cases = skill_record.choose_cases(record, record.time_step)
    assert cases.references == (record.times[4], record.times[5])


def test_a_record_of_too_few_frames_is_named(tmp_path):
    record = one(tmp_path / "a.nc", rain(frames=4))
    with pytest.raises(DataError, match=r"a has no 4 \+ 1 frames 5 min apart"):
        skill_record.choose_cases(record, record.time_step)


def by_row(text):
    rows = json.loads(text)["scores"]
    return {tuple(value for key, value in row.items() if key != "value"): row["value"] for row in rows}


def check_equal_to_nowcast_evaluate(path, tmp_path):
    kept = tmp_path / "kept"
    skill_record.score_record(path, "extrapolation", kept, tmp_path / "baselines", starts=99, device="cpu")
    assert {file.name.split("_")[0] for file in (tmp_path / "baselines").rglob("*.nc")} == set(skill_record.KEPT)
    code, direct, _ = command("evaluate", "extrapolation", "--observations", path, "--format", "json")
    assert not code
    found = by_row((kept / "scores.json").read_text())
    assert found == by_row(direct)
    assert any(key[0] == "sprog" and value for key, value in found.items())


def test_scores_from_kept_forecasts_are_those_of_nowcast_evaluate(quick, tmp_path):
    path = write_record(tmp_path / "gappy.nc", rain(frames=20, shape=(20, 24), missing=0.02))
    check_equal_to_nowcast_evaluate(path, tmp_path)


class Coarse(Halved):
    """What a network is to an evaluation that was trained on 10 minutes and 3 leads."""

    name, input_frames, lead_frames = "coarse", 4, 3

    def own_time_step(self, record):
        return np.timedelta64(600, "s")


def test_baselines_are_kept_in_the_step_and_leads_of_the_network(quick, tmp_path):
    record, network = one(tmp_path / "a.nc", rain(frames=16, missing=0.02)), Coarse()
    cases = skill_record.choose_cases(record, np.timedelta64(600, "s"), most_leads=3, starts=99)
    kept = skill_record.sources_of(network, record, cases, tmp_path / "baselines")
    direct = {"coarse": network} | {name: BASELINES[name]() for name in BASELINES}
    found, expected = (evaluate(s, [record], selection=Selection(), thresholds=[0.5, 5]) for s in (kept, direct))
    assert found.lead_minutes == (10, 20, 30)
    assert found.num_cases == len(cases.references) == 4
    for name in direct:
        for part, array in expected.total(name).arrays().items():
            np.testing.assert_array_equal(found.total(name).arrays()[part], array)


@pytest.mark.skipif("pysteps" not in available(), reason="pysteps is not installed")
def test_those_of_pysteps_are_as_well(tmp_path):
    check_equal_to_nowcast_evaluate(write_record(tmp_path / "a.nc", rain(frames=17, shape=(40, 44), motion=(1, 1))), tmp_path)


def test_without_pysteps_it_says_how_to_install_it(radar, tmp_path, monkeypatch):
    monkeypatch.setattr(skill_record, "available", lambda: ("persistence", "extrapolation"))
    with pytest.raises(UsageError, match=r"pip install pysteps"):
        skill_record.score_record(
            radar / "south" / "rain.nc", "extrapolation", tmp_path / "x", tmp_path, starts=1, device="cpu"
        )


def test_another_network_or_other_starts_are_scored_anew(quick, radar, tmp_path):
    def score(network, starts):
        path, folders = radar / "south" / "rain.nc", (tmp_path / "out", tmp_path / "baselines")
        return skill_record.score_record(path, network, *folders, starts=starts, device="cpu")

    write_record(radar / "south" / "rain.nc", rain(frames=20, shape=(20, 24)))
    assert score("extrapolation", 2).endswith("2 cases of 12 leads")
    assert score("extrapolation", 2).endswith("done already")
    assert score("persistence", 2).endswith("2 cases of 12 leads")
    assert score("persistence", 3).endswith("3 cases of 12 leads")


def test_commands_run_with_their_share_of_the_cores_and_failures_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6), raising=False)
    tell = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ['OMP_NUM_THREADS'])"
    skill.run_all([[sys.executable, "-c", tell, str(tmp_path / name)] for name in "ab"], jobs=2)
    assert [(tmp_path / name).read_text() for name in "ab"] == ["3", "3"]
    with pytest.raises(NowcastError, match="1 of 2 commands failed") as failed:
        skill.run_all([[sys.executable, "-c", "raise SystemExit(4)"], [sys.executable, "-c", ""]], jobs=1)
    assert failed.value.exit_code == 4


def test_a_stop_is_passed_on_once(tmp_path):
    waits = """import pathlib, signal, sys, time
ready, ended = map(pathlib.Path, sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(ended.touch()))
ready.touch()
time.sleep(60)"""
    ready, ended = tmp_path / "ready", tmp_path / "ended"

    def interrupt():
        while not ready.exists():
            time.sleep(0.02)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    given = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are told to ignore it
    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        skill.run_all([[sys.executable, "-c", waits, str(ready), str(ended)], [sys.executable, "-c", ""]], jobs=1)
    signal.signal(signal.SIGINT, given)
    assert ended.exists()


def test_the_command_ends_with_one_line_for_an_error(quick, options, capsys):
    with pytest.raises(SystemExit) as end:
        skill.main([*options, "--only", "evaluate"])
    assert end.value.code == CheckpointError.exit_code
    assert capsys.readouterr().err.startswith("error: ")


def test_extrapolation_stands_for_itself_in_the_sources(tmp_path):
    record = one(tmp_path / "a.nc", rain(frames=8))
    cases = skill_record.choose_cases(record, record.time_step)
    assert isinstance(skill_record.baseline("extrapolation", cases), Extrapolation)
    assert skill_record.baseline("extrapolation", cases).lead_frames == 4

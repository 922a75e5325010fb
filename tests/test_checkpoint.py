"""A checkpoint is whole and unchanged, or it is refused with exit code 4."""

import pickle
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nowcast.checkpoint import BEST, LAST, read_checkpoint, write_checkpoint
from nowcast.errors import CheckpointError, OutputError

TENSORS = {
    "model.weight": torch.arange(12.0).reshape(3, 4),
    "model.step": torch.tensor(7),
    "model.empty": torch.zeros(0, 3),
    "optimizer.0.exp_avg": torch.randn(5, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16),
}
FACTS = {"step": 12, "units": "mm h-1", "nested": {"a": [1, 2.5, None]}}


@pytest.fixture
def path(tmp_path):
    write_checkpoint(tmp_path / BEST, FACTS, TENSORS)
    return tmp_path / BEST


def test_facts_and_tensors_come_back(path):
    checkpoint = read_checkpoint(path)
    assert {key: checkpoint.facts[key] for key in FACTS} == FACTS
    assert set(checkpoint.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.tensors[name], tensor)
        assert checkpoint.tensors[name].dtype == tensor.dtype
    assert set(checkpoint.part("model")) == {"weight", "step", "empty"}


def test_a_run_folder_means_its_best_then_its_last(path):
    write_checkpoint(path.parent / LAST, FACTS | {"step": 13}, TENSORS)
    assert read_checkpoint(path.parent).facts["step"] == 12
    path.unlink()
    assert read_checkpoint(path.parent).facts["step"] == 13


def test_what_stood_there_is_kept_when_asked(tmp_path):
    for step in range(3):
        write_checkpoint(tmp_path / "a", {"step": step}, TENSORS, keep=tmp_path / "b")
    assert read_checkpoint(tmp_path / "a").facts["step"] == 2
    assert read_checkpoint(tmp_path / "b").facts["step"] == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / BEST
    write_checkpoint(path, FACTS, TENSORS)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) * 8 - 1))
    content[place // 8] ^= 1 << (place % 8)
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)


def test_truncations_and_other_files_are_refused(path):
    content = path.read_bytes()
    others = [content[:n] for n in (0, 5, 8, 100, len(content) - 1)]
    others += [content + b"x", b"<html>", pickle.dumps({"a": 1}), struct.pack("<Q", 1 << 60) + content[8:]]
    for other in others:
        path.write_bytes(other)
        with pytest.raises(CheckpointError, match="not a nowcast checkpoint"):
            read_checkpoint(path)


def test_a_header_that_claims_petabytes_allocates_nothing(path):
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="not a nowcast checkpoint"):
        read_checkpoint(path)


def test_absent_checkpoints_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no such checkpoint or run folder: .*nowhere"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no best\.safetensors"):
        read_checkpoint(tmp_path)


def test_a_newer_format_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("nowcast.checkpoint.FORMAT", 2)
    write_checkpoint(tmp_path / BEST, FACTS, TENSORS)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"has format 2; this version of nowcast reads format 1"):
        read_checkpoint(tmp_path / BEST)


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nowcast.atomic.os.replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_checkpoint(path, {"step": 99}, TENSORS)
    monkeypatch.undo()
    assert read_checkpoint(path).facts["step"] == 12
    assert [file.name for file in path.parent.iterdir()] == [BEST]


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write_checkpoint(tmp_path / "absent" / BEST, FACTS, TENSORS)

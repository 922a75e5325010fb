"""A checkpoint is whole and unchanged, or it is refused with exit code 4."""

import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import tiny_experiment

from nowcast import config
from nowcast.errors import CheckpointError, MemoryLimitError, OutputError
from nowcast.forecasters.network import Network
from nowcast.models import checkpoint
from nowcast.models.checkpoint import BEST, LAST, PREVIOUS, Checkpoint, read_checkpoint, write_checkpoint
from nowcast.training.experiment import resolve
from nowcast.training.run_folder import resumable

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
    assert {key: checkpoint.metadata[key] for key in FACTS} == FACTS
    assert set(checkpoint.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.tensors[name], tensor)
        assert checkpoint.tensors[name].dtype == tensor.dtype
    assert set(checkpoint.tensors_of("model")) == {"weight", "step", "empty"}


def test_equal_checkpoints_are_equal_files_whose_tensors_lie_at_multiples_of_8(tmp_path):
    contents = set()
    for number in range(8):
        write_checkpoint(tmp_path / f"{number}.safetensors", FACTS | {"name": "Zürich"}, TENSORS)
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1
    assert int.from_bytes(contents.pop()[:8], "little") % 8 == 0


def test_a_run_folder_means_its_best_then_its_last(path):
    write_checkpoint(path.parent / LAST, FACTS | {"step": 13}, TENSORS)
    assert read_checkpoint(path.parent).metadata["step"] == 12
    path.unlink()
    assert read_checkpoint(path.parent).metadata["step"] == 13


def test_what_stood_there_is_kept_when_asked(tmp_path):
    for step in range(3):
        write_checkpoint(tmp_path / "a", {"step": step}, TENSORS, keep=tmp_path / "b")
    assert read_checkpoint(tmp_path / "a").metadata["step"] == 2
    assert read_checkpoint(tmp_path / "b").metadata["step"] == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]


@settings(max_examples=150)
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


def mutants(content):
    """600 of them: flipped bits and bytes anywhere, pieces cut out, doubled and swapped, truncations, other files."""
    draw = random.Random(0)
    for _ in range(300):
        place = draw.randrange(len(content))
        yield content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
    for _ in range(100):
        place = draw.randrange(struct.unpack("<Q", content[:8])[0] + 8)  # in the header
        yield content[:place] + bytes([draw.randrange(256)]) + content[place + 1 :]
    for _ in range(100):
        yield content[: draw.randrange(len(content))]
    for _ in range(80):
        a, b = sorted(draw.sample(range(len(content)), 2))
        yield draw.choice([content[:a] + content[b:], content[:b] + content[a:], content[:a] + bytes(b - a) + content[b:]])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"model": 1}))
    legacy = io.BytesIO()
    torch.save({"model": torch.ones(3)}, legacy)
    others = [pickle.dumps({"a": 1}), archive.getvalue(), legacy.getvalue(), b"", b"\x89HDF\r\n\x1a\n", b"<html>", b"{}"]
    others += [content + b"\0", b"\0" + content, content * 2, content[::-1], bytes(len(content)), b"\xff" * len(content)]
    others += [draw.randbytes(size) for size in (1, 7, 8, 9, 100, 1000, 10_000)]
    yield from others


@pytest.mark.slow
def test_of_600_mutants_none_is_read(tmp_path, caplog):
    write_checkpoint(tmp_path / LAST, FACTS, TENSORS)
    write_checkpoint(tmp_path / PREVIOUS, FACTS | {"step": 11}, TENSORS)
    content, tried = (tmp_path / LAST).read_bytes(), 0
    for mutant in mutants(content):
        tried += mutant != content
        if mutant == content:
            continue
        (tmp_path / LAST).write_bytes(mutant)
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(tmp_path / LAST)
        assert error.value.exit_code == 4
        assert str(tmp_path / LAST) in str(error.value)
        caplog.clear()
        assert resumable(tmp_path).metadata["step"] == 11
        assert "; going on from previous.safetensors" in caplog.text
    assert tried >= 590
    (tmp_path / PREVIOUS).write_bytes(content[:-1])
    with pytest.raises(CheckpointError):
        resumable(tmp_path)


def as_file(header, tail=b""):
    return struct.pack("<Q", len(header)) + header + tail


EMPTY = b'{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
HOSTILE_HEADERS = {
    "length": struct.pack("<Q", (1 << 63) - 1) + b"{}",
    "a length as long as the file": struct.pack("<Q", 1 << 40) + b"{}",
    "shape": as_file(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'),
    "shapes that overflow": as_file(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
    "an integer": as_file(b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,0]}}' % (b"9" * 100_000)),
    "an integer in the facts": as_file(b'{"__metadata__":{"nowcast":"{\\"step\\":%s}","sha256":""}}' % (b"9" * 100_000)),
    "nesting": as_file(b"[" * 1_000_000),
    "nested facts": as_file(b'{"__metadata__":{"nowcast":"%s","sha256":""}}' % (b"[" * 1_000_000)),
    "nested objects": as_file(b'{"a":' * 500_000 + b"1" + b"}" * 500_000),
    "many tensors": as_file(b"{%s}" % b",".join(b'"%d":%s' % (n, EMPTY) for n in range(100_000))),
    "facts that are a list": as_file(b'{"__metadata__":{"nowcast":"[]","sha256":""}}'),
    "no metadata": as_file(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"),
    "a dtype": as_file(b'{"__metadata__":{"nowcast":"{}","sha256":""},"a":%s}' % EMPTY.replace(b"F32", b"F128")),
}

READ_LITTLE = """
import resource, sys, time
from nowcast.models.checkpoint import read_checkpoint
from nowcast.errors import CheckpointError
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
for path in sys.argv[1:]:
    try:
        read_checkpoint(path)
    except CheckpointError:
        print("refused")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - start)
"""


@pytest.mark.slow
def test_no_header_makes_it_allocate_or_hang(tmp_path):
    for n, content in enumerate(HOSTILE_HEADERS.values()):
        (tmp_path / str(n)).write_bytes(content)
    files = [tmp_path / str(n) for n in range(len(HOSTILE_HEADERS))]
    done = subprocess.run([sys.executable, "-c", READ_LITTLE, *files], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    *refused, last = done.stdout.splitlines()
    assert len(refused) == len(HOSTILE_HEADERS)
    kilobytes, seconds = map(float, last.split())
    assert kilobytes < 400_000
    assert seconds < 10


def test_a_file_that_is_larger_than_the_memory_is_not_read(tmp_path):
    with (tmp_path / BEST).open("wb") as file:
        file.write(as_file(b'{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}'))
        try:
            file.truncate(1 << 42)  # sparse
        except OSError:
            pytest.skip("no file of that size can be made here")
    with pytest.raises(MemoryLimitError, match=r"best\.safetensors takes 8\.8e\+03 GB of memory to read and this machine has"):
        read_checkpoint(tmp_path / BEST)


HOSTILE_FACTS = {
    "model.hidden_channels": [10**9],
    "model.kernel_sizes": [10**9 + 1],
    "model.patch": 10**9,
    "data.input_frames": 10**9,
    "data.crop": -1,
    "input_frames": 10**12,
    "lead_frames": -3,
    "time_steps": [10**30],
    "model.name": "__import__",
    "transform.name": {},
    "config": 7,
}


def good_facts():
    facts = {"input_frames": 2, "lead_frames": 3, "time_steps": [300], "quantity": "rain_rate"}
    return json.loads(json.dumps({"config": config.as_dict(resolve(tiny_experiment([]))), **facts}))


@pytest.mark.parametrize("key", HOSTILE_FACTS)
def test_facts_that_no_training_writes_are_refused(key):
    facts = good_facts()
    *path, last = key.split(".")
    tree = facts["config"] if path else facts
    for name in path:
        tree = tree[name]
    tree[last] = HOSTILE_FACTS[key]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=r"^run cannot be used: "):
        Network(Checkpoint(facts, {}, ""), "run", device=torch.device("cpu"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize(("section", "key", "value"), [("data", "of_tomorrow", 1), ("model", "name", "of_tomorrow")])
def test_a_checkpoint_of_a_newer_version_is_told_as_such(section, key, value):
    facts = good_facts()
    facts["config"][section][key] = value
    with pytest.raises(CheckpointError, match=r"of_tomorrow.*\nA newer version of nowcast may have written it: update") as told:
        Network(Checkpoint(facts, {}, ""), "run", device=torch.device("cpu"))
    assert len(str(told.value).splitlines()) == 2


def test_a_model_as_large_as_a_config_allows_is_not_allocated_for_tensors_that_are_small():
    facts = good_facts()
    facts["config"]["model"] |= {"hidden_channels": [4096] * 16, "kernel_sizes": [31] * 16}  # 2e12 bytes of weights
    with pytest.raises(CheckpointError, match="run cannot be used: "):
        Network(Checkpoint(facts, {"model.head.weight": torch.zeros(1)}, ""), "run", device=torch.device("cpu"))


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
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    write_checkpoint(tmp_path / BEST, FACTS, TENSORS)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"has format 2; this version of nowcast reads format 1"):
        read_checkpoint(tmp_path / BEST)


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_checkpoint(path, {"step": 99}, TENSORS)
    monkeypatch.undo()
    assert read_checkpoint(path).metadata["step"] == 12
    assert [file.name for file in path.parent.iterdir()] == [BEST]


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        write_checkpoint(tmp_path / "absent" / BEST, FACTS, TENSORS)

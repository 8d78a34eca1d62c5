"""Statistics: merged in pieces, kept in files, never mixed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.metrics.statistics import (
    FeatureSource,
    FeatureStatistics,
    load_statistics,
    save_statistics,
)

SOURCE = FeatureSource("i3d", "a" * 64, "original", "b" * 64)


def features(count: int = 100, offset: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(0)
    return offset + random.normal(size=(count, 6)) @ random.normal(size=(6, 6))


@pytest.mark.parametrize("pieces", [[100], [1, 99], [50, 50], [33, 33, 1, 33], [1] * 100])
def test_merged_pieces_equal_the_whole(pieces: list[int]) -> None:
    """Also far from 0, where sums of squares would lose all digits."""
    whole = features(offset=1e6)
    parts = np.split(whole, np.cumsum(pieces)[:-1])
    merged = FeatureStatistics.of(parts[0])
    for part in parts[1:]:
        merged = merged.merged(FeatureStatistics.of(part))
    assert merged.count == 100
    np.testing.assert_allclose(merged.mean, whole.mean(0), rtol=1e-14)
    for ddof in (0, 1):
        np.testing.assert_allclose(
            merged.covariance(ddof), np.cov(whole, rowvar=False, ddof=ddof), rtol=1e-8
        )


def test_files_hold_everything(tmp_path: Path) -> None:
    path, statistics = tmp_path / "real.npz", FeatureStatistics.of(features())
    save_statistics(path, statistics, SOURCE)
    loaded, source = load_statistics(path)
    assert source == SOURCE
    assert loaded.count == 100
    np.testing.assert_array_equal(loaded.mean, statistics.mean)
    np.testing.assert_array_equal(loaded.scatter, statistics.scatter)
    with pytest.raises(UserError, match="exists already"):
        save_statistics(path, statistics, SOURCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "stylegan-v"}, "have preset 'stylegan-v', this run has 'original'"),
        ({"sha256": "c" * 64}, "have sha256 'cccccccccccc', this run has 'aaaaaaaaaaaa'"),
        ({"preprocessing": "d" * 64}, "have preprocessing 'dddddddddddd'"),
        ({"extractor": "videomae"}, "have extractor 'videomae'"),
    ],
)
def test_features_of_different_protocols_are_not_mixed(
    change: dict[str, str], message: str
) -> None:
    SOURCE.check_same(replace(SOURCE), Path("real.npz"))
    with pytest.raises(UserError, match=rf"real\.npz: these statistics {message}"):
        SOURCE.check_same(replace(SOURCE, **change), Path("real.npz"))


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "real.npz"
    with pytest.raises(UserError, match="no such file"):
        load_statistics(path)
    save_statistics(path, FeatureStatistics.of(features()), SOURCE)
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"real\.npz: not a file of statistics"):
            load_statistics(path)
    path.write_bytes(whole)
    with np.load(path) as stored:
        arrays = dict(stored)
    for change, message in (
        ({"version": 9}, "version 9, this lisa_video reads 1"),
        ({"scatter": np.zeros((6, 5))}, "are broken"),
        ({"mean": np.full(6, np.nan)}, "are broken"),
        ({"count": 0}, "are broken"),
    ):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(UserError, match=message):
            load_statistics(path)

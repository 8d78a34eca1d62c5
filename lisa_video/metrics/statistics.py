"""Mean and covariance of features: computed in pieces, merged exactly, kept in a file.

Shapes: N samples, D features.

File format, version 1: an .npz archive without pickled objects, with `version`, `count`, `mean`
(D,), `scatter` (D, D) and the texts of `FeatureSource`.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lisa_video.errors import UserError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class FeatureSource:
    """Where features come from. Only features of equal sources may be compared."""

    extractor: str
    """Name of the network."""
    sha256: str
    """Of its weights."""
    preset: str
    """Name of the evaluation protocol."""
    preprocessing: str
    """Hash of everything that is done to clips before the network, sampling included."""

    def check_same(self, other: FeatureSource, path: Path) -> None:
        """Raises UserError, naming `path` that `other` was read from, where the sources differ."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                raise UserError(
                    f"{path}: these statistics have {field.name} '{_short(theirs)}', this run has "
                    f"'{_short(mine)}'; features of different protocols cannot be compared"
                )


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Count, mean and scatter of a sample."""

    count: int
    mean: NDArray[np.float64]
    """(D,)."""
    scatter: NDArray[np.float64]
    """(D, D): the sum of the outer products of the deviations from the mean."""

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> FeatureStatistics:
        """Statistics of a sample (N, D), N at least 1."""
        assert features.ndim == 2 and len(features), features.shape
        mean = features.mean(0, dtype=np.float64)
        centred = features.astype(np.float64) - mean
        return cls(len(features), mean, centred.T @ centred)

    def merged(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of both samples together (Chan, Golub & LeVeque 1979, eq. 2.1)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        return FeatureStatistics(
            count,
            self.mean + apart * (other.count / count),
            self.scatter
            + other.scatter
            + np.outer(apart, apart) * (self.count * other.count / count),
        )

    def covariance(self, ddof: int) -> NDArray[np.float64]:
        """(D, D); `ddof` as in `numpy.cov`, below the count."""
        assert self.count > ddof, (self.count, ddof)
        return self.scatter / (self.count - ddof)


def save_statistics(path: Path, statistics: FeatureStatistics, source: FeatureSource) -> None:
    """Write a file of statistics, whole or not at all; raises UserError where it cannot."""
    if path.exists():
        raise UserError(f"{path}: exists already; give another name or remove it first")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                version=FORMAT_VERSION,
                count=statistics.count,
                mean=statistics.mean,
                scatter=statistics.scatter,
                **{name: np.asarray(text) for name, text in asdict(source).items()},
            )
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def load_statistics(path: Path) -> tuple[FeatureStatistics, FeatureSource]:
    """Read what `save_statistics` wrote.

    Raises:
        UserError: no such file, not a file of statistics, another version, or broken content.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of statistics")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        version, count = int(arrays["version"]), int(arrays["count"])
        mean, scatter = arrays["mean"], arrays["scatter"]
        source = FeatureSource(*(str(arrays[field.name]) for field in fields(FeatureSource)))
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, zipfile.BadZipFile):
        raise UserError(f"{path}: not a file of statistics that lisa_video wrote") from None
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: version {version}, this lisa_video reads {FORMAT_VERSION}")
    shapes_fit = mean.ndim == 1 and scatter.shape == (len(mean), len(mean)) and count > 0
    if not shapes_fit or not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
        raise UserError(f"{path}: its mean {mean.shape} and scatter {scatter.shape} are broken")
    return FeatureStatistics(count, mean, scatter), source


def _short(text: str) -> str:
    """Hashes by their first digits."""
    return text[:12] if len(text) == 64 else text

"""What a run depends on beside its settings: the clips that it reads, and the code that runs.

Both are hashes that do not depend on where files lie, so that a moved run or set stays the same.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import lisa_video
from lisa_video.dataset import ClipDataset
from lisa_video.errors import UserError
from lisa_video.manifest_index import CHECKED_CLIPS
from lisa_video.packing.clips import PackedClips
from lisa_video.reports import package_versions
from lisa_video.training.sources import Sources

_PACKAGES = ("torch", "diffusers")  # whose sums a training is made of


@dataclass(frozen=True)
class Code:
    """The code of a run."""

    version: str
    """Of lisa_video."""
    commit: str | None
    """Of the checkout that it runs from, with "-dirty" where files differ; None outside of one."""
    sources: str
    """SHA-256 over the package's Python files."""
    packages: Mapping[str, str]
    """Versions of torch and diffusers."""

    def same(self, other: Code) -> bool:
        """Whether both compute the same: a commit may change the documentation alone."""
        return (self.sources, self.packages) == (other.sources, other.packages)

    def __str__(self) -> str:
        at = f" at {self.commit[:12]}" if self.commit else ""
        packages = "".join(f", {name} {version}" for name, version in self.packages.items())
        return f"lisa_video {self.version}{at} (sources {self.sources[:8]}){packages}"


@dataclass(frozen=True)
class Provenance:
    """Of a run at one time; every checkpoint has it."""

    data: str
    """See `data_fingerprint`."""
    code: Code

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Provenance:
        """Raises KeyError or TypeError where `values` are not those of `to_json`."""
        return cls(values["data"], Code(**values["code"]))


def provenance(sources: Sources) -> Provenance:
    """Of a run that reads `sources` with the code of this process."""
    return Provenance(data_fingerprint(sources), code_version())


def data_fingerprint(sources: Sources) -> str:
    """SHA-256 over the clips of all splits that a run reads.

    It covers their lines of the manifest, and so captions and the SHA-256 of each video. Poses count
    with the content of their files, in splits of up to `CHECKED_CLIPS` clips; beyond that by name
    alone. Of a packed set the checksums of all parts are taken.

    Raises UserError where a file cannot be read.
    """
    digest = hashlib.sha256()
    for clips in (reading.clips for reading in sources.readings):
        digest.update(clips.split.encode() + b"\n")
        for line in clips.manifest.lines():
            digest.update(line + b"\n")
        for content in _contents(clips, sources.packed):
            digest.update(content)
    return digest.hexdigest()


def _contents(clips: ClipDataset, packed: PackedClips | None) -> Iterator[bytes]:
    """Of what the manifest has no hash of, or hashes of it."""
    if packed is not None:
        yield packed.packed.index.checksums[packed.rows(clips)].tobytes()
    elif len(clips) <= CHECKED_CLIPS:
        for entry in clips.manifest.metadata():
            path = clips.root / entry.poses
            try:
                yield hashlib.sha256(path.read_bytes()).digest()
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=1)
def code_version() -> Code:
    """Of this process."""
    folder = Path(lisa_video.__file__).parent
    versions = package_versions(*_PACKAGES)
    return Code(
        version=lisa_video.__version__,
        commit=git_commit(folder),
        sources=_sources_hash(folder),
        packages={name: versions[name] for name in _PACKAGES},
    )


def _sources_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\n")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout whose files `folder` holds, "-dirty" behind it where they differ.

    None where there is no git, or where the folder is not part of a checkout, as that of an
    installed package below somebody's own.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

"""What a manifest costs: opening one of many clips, in time and memory, and validating one.

The process of each variant is a fresh one that imports what it needs, without torch where the
variant needs none; its memory is the most that was resident, imports included.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lisa_video.benchmarks.data_config import ManifestBenchmarkConfig
from lisa_video.errors import UserError
from lisa_video.manifest_index import MANIFEST, Manifest
from lisa_video.manifest_lines import FORMAT, FORMAT_VERSION, ManifestEntry
from lisa_video.reports import check_new_file, format_table, package_versions, write_json

VARIANTS = {
    "Manifest.open": (),
    "Manifest.open, with torch": ("lisa_video.dataset",),
    "json.loads, all kept": (),
}
"""Name -> modules imported besides."""

_PLAIN = "json.loads, all kept"


@dataclass(frozen=True)
class Opening:
    """One variant."""

    import_seconds: float
    seconds: float
    """Of wall clock, from the first byte until clips can be chosen."""
    cpu_seconds: float
    peak_mb: float
    """MiB of resident memory."""


@dataclass(frozen=True)
class ManifestCosts:
    """Everything measured."""

    clips: int
    megabytes: float
    """Of the file."""
    openings: dict[str, Opening]
    """By variant."""
    validated: int
    """Clips of the other set."""
    validation_seconds: float
    """Metadata only, its files looked for."""
    validation_cpu_seconds: float


def check(config: ManifestBenchmarkConfig) -> None:
    """Raises UserError for the output file."""
    if config.json is not None:
        check_new_file(config.json)


def run(config: ManifestBenchmarkConfig) -> None:
    """Measure, print the table and write the JSON file."""
    costs = measure_costs(config)
    print(format_costs(costs))
    if config.json is not None:
        write_json(config.json, asdict(costs) | {"versions": package_versions("msgspec", "numpy")})


def measure_costs(config: ManifestBenchmarkConfig) -> ManifestCosts:
    """Write both sets into a temporary folder and measure on them."""
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large"), Path(folder, "small")
        write_set(large, config.clips)
        write_set(small, config.validated_clips, with_files=True)
        openings = {name: _measure_opening(name, large) for name in VARIANTS}
        seconds, cpu_seconds = _validation_seconds(small)
        return ManifestCosts(
            clips=config.clips,
            megabytes=(large / MANIFEST).stat().st_size / 1e6,
            openings=openings,
            validated=config.validated_clips,
            validation_seconds=seconds,
            validation_cpu_seconds=cpu_seconds,
        )


def write_set(root: Path, clips: int, *, with_files: bool = False) -> None:
    """A manifest of clips such as a user has, and their files, which are empty."""
    root.mkdir()
    with (root / MANIFEST).open("w") as file:
        file.write(json.dumps({"format": FORMAT, "version": FORMAT_VERSION}) + "\n")
        for entry in map(example_entry, range(clips)):
            file.write(json.dumps(asdict(entry)) + "\n")
            for name in (entry.video, entry.poses) if with_files else ():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def example_entry(index: int) -> ManifestEntry:
    """The clip of a number."""
    name = f"{index // 1000:05d}/clip_{index:08d}"
    return ManifestEntry(
        id=f"clip_{index:08d}",
        video=f"clips/{name}.mp4",
        poses=f"poses/{name}.npz",
        caption="a woman in a red dress turns around in front of a white wall",
        fps=29.97,
        frames=120 + index % 200,
        width=720,
        height=1280,
        split="train" if index % 50 else "validation",
        people=1,
        sha256=hashlib.sha256(str(index).encode()).hexdigest(),
    )


def format_costs(costs: ManifestCosts) -> str:
    """Both parts of the result."""
    plain = costs.openings[_PLAIN]
    rows = [
        [
            name,
            f"{each.import_seconds:.2f}",
            f"{each.seconds:.2f}",
            f"{each.cpu_seconds:.2f}",
            f"{plain.cpu_seconds / each.cpu_seconds:.2f}",
            f"{each.peak_mb:.0f}",
            f"{plain.peak_mb / each.peak_mb:.2f}",
        ]
        for name, each in costs.openings.items()
    ]
    header = ["", "imports s", "open s", "CPU s", "times less", "peak MiB", "times less"]
    size = f"{costs.clips} clips, {costs.megabytes:.0f} MB of lines"
    validated = (
        f"{costs.validated} clips validated (metadata only, files looked for): "
        f"{costs.validation_seconds:.2f} s, CPU {costs.validation_cpu_seconds:.2f} s"
    )
    return f"{size}\n{format_table(header, rows)}\n\n{validated}"


def _measure_opening(variant: str, root: Path) -> Opening:
    code = (
        "import time; started = time.perf_counter(); "
        "from lisa_video.benchmarks.manifest import report_opening; report_opening(started)"
    )
    command = [sys.executable, "-c", code, variant, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"measuring '{variant}' failed: {done.stderr.strip()[-300:]}")
    return Opening(**json.loads(done.stdout))


def report_opening(process_started: float) -> None:
    """What the process of a variant does: open a set and print an `Opening` as JSON.

    `process_started` is `time.perf_counter()` before the first import.
    """
    variant, root = sys.argv[1], Path(sys.argv[2])
    for module in VARIANTS[variant]:
        import_module(module)
    import_seconds = time.perf_counter() - process_started
    started, cpu_started = time.perf_counter(), time.process_time()
    opened: object = (
        _load_plainly(root) if variant == _PLAIN else Manifest.open(root, check_files=False)
    )
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert opened
    print(json.dumps(asdict(Opening(import_seconds, seconds, cpu_seconds, _peak_mb()))))


def _load_plainly(root: Path) -> list[dict[str, Any]]:
    def lines() -> Iterator[str]:
        with (root / MANIFEST).open(encoding="utf-8") as file:
            next(file)
            yield from file

    return [json.loads(line) for line in lines()]


def _peak_mb() -> float:
    """Of this program alone: what getrusage says can be that of the process before exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (text for text in status.read_text().splitlines() if text.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _validation_seconds(root: Path) -> tuple[float, float]:
    """Of wall clock and of the processor."""
    from lisa_video.validation.config import ValidateDataConfig
    from lisa_video.validation.job import validate

    started, cpu_started = time.perf_counter(), time.process_time()
    found = validate(ValidateDataConfig(root, metadata_only=True))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert not found.findings, found.findings[:3]
    return seconds, cpu_seconds

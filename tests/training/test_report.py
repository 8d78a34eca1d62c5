"""The report of real tiny runs: one file that asks for nothing else."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lisa_video.errors import UserError
from lisa_video.report_config import ReportConfig
from lisa_video.training.config import ValidationConfig
from lisa_video.training.encoding import ClipEncoder
from lisa_video.training.loop import train
from lisa_video.training.report import report_page, write_report
from lisa_video.training.report_curves import running_mean
from tests.evaluation.test_report import Links
from tests.tiny import tiny_detector
from tests.training.runs import tiny_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(clips: Path, encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two validations and a name that could be a tag."""
    folder = tmp_path_factory.mktemp("run")
    validation = ValidationConfig(
        every=3,
        clips=2,
        inference_steps=1,
        detector_weights=tiny_detector(folder / "detector"),
        videos=1,
    )
    config = tiny_config(clips, folder / "<i>run", steps=3, validation=validation)
    train(config, encoder=encoder)
    write_report(ReportConfig(config.output))
    return config.output


def links(page: str) -> Links:
    found = Links()
    found.feed(page)
    assert not found.open
    assert all(source.startswith("data:") for source in found.sources)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)
    return found


def test_a_finished_run_leaves_a_page_that_stands_alone(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    kinds = [source.partition(";")[0] for source in links(page).sources]
    assert kinds.count("data:video/mp4") == 2
    assert kinds.count("data:image/svg+xml") >= 12
    for part in (
        "<small class='finished'>finished</small>",
        "Training: &lt;i&gt;run",
        "Held-out clips at step 3",
        "at step 0</summary>",
        "00-clip_7",
        "curve: PCK of generated clips",
        "curve: Adherence gap",
        "curve: each frame&#x27;s alignment loss",
        "objective: lisa",
        "<td>validation/pck@0.2</td>",
        "<td>source files</td>",
    ):
        assert part in page, part
    assert "<i>" not in page


def test_videos_beyond_the_size_become_stills(run: Path) -> None:
    kinds = [s.partition(";")[0] for s in links(report_page(run, videos_mib=0)).sources]
    assert kinds.count("data:video/mp4") == 0 and kinds.count("data:image/jpeg") == 2
    size = next((run / "validation" / "step_00000003").iterdir()).stat().st_size
    kinds = [s.partition(";")[0] for s in links(report_page(run, videos_mib=size / 2**20)).sources]
    assert kinds.count("data:video/mp4") == kinds.count("data:image/jpeg") == 1


def test_a_page_elsewhere_is_never_written_over(run: Path, tmp_path: Path) -> None:
    config = ReportConfig(run, html=tmp_path / "page.html")
    assert write_report(config) == tmp_path / "page.html"
    with pytest.raises(UserError, match="exists already"):
        write_report(config)
    assert write_report(ReportConfig(run)) == run / "report.html"


def test_a_run_that_has_only_begun_has_a_page(
    clips: Path, encoder: ClipEncoder, tmp_path: Path
) -> None:
    def stop(step: int, _: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(clips, tmp_path, probe__every=0), encoder=encoder, on_step=stop)
    assert not (tmp_path / "report.html").exists()
    page = report_page(tmp_path)
    links(page)
    assert "was interrupted at step 0" in page and "Nothing was probed" in page


def copied(run: Path, folder: Path) -> Path:
    (folder / "validation" / "step_00000001").mkdir(parents=True)
    for name in ("run.json", "log.jsonl"):
        (folder / name).write_bytes((run / name).read_bytes())
    return folder


def test_text_of_others_is_shown_and_never_run(run: Path, tmp_path: Path) -> None:
    copy = copied(run, tmp_path / "copy")
    evil = "<script>alert(1)</script>"
    values = json.loads((copy / "run.json").read_text())
    values |= {"status": evil, "reason": evil, "command": [evil], "git": evil, "started": evil}
    values["versions"] = values["backbone"] = {evil: evil}
    values["config"] = {evil: evil}
    values["figures"] = {evil: 1.0}
    (copy / "run.json").write_text(json.dumps(values))
    with (copy / "log.jsonl").open("a") as file:
        file.write(json.dumps({"step": 9, evil: 1.0, "loss": evil, "frame_shares": [evil]}) + "\n")
    page = report_page(copy)
    links(page)
    assert "<script" not in page and "&lt;script" in page


def test_files_that_are_none_of_the_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training run there"):
        report_page(tmp_path)
    copy = copied(run, tmp_path / "copy")
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    link = copy / "validation" / "step_00000001" / "a.mp4"
    link.symlink_to(tmp_path / "secret.mp4")
    with pytest.raises(UserError, match=r"a\.mp4: is a link that leads out of the folder"):
        report_page(copy)
    link.unlink()
    for line, problem in (
        ("{", "not a readable log"),
        ("[]", "not the log of a training run"),
        ('{"loss": 1}', "not the log of a training run"),
    ):
        (copy / "log.jsonl").write_text(line + "\n")
        with pytest.raises(UserError, match=problem) as caught:
            report_page(copy)
        assert "\n" not in str(caught.value)


def test_the_job_takes_the_folder_without_a_flag(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    script = [sys.executable, "pipelines/report.py", str(run), "--html"]
    done = subprocess.run([*script, str(page)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert page.read_text(encoding="utf-8") == report_page(run)
    done = subprocess.run([*script, "page.txt"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "a page ends in .html" in done.stderr


def test_running_means_keep_constants_and_the_mean_of_neighbours() -> None:
    np.testing.assert_allclose(running_mean(np.full(7, 3.0), 5), 3.0)
    np.testing.assert_allclose(running_mean(np.array([0.0, 3.0, 6.0]), 3), [1.5, 3.0, 4.5])
    np.testing.assert_allclose(running_mean(np.array([1.0]), 9), [1.0])

"""Settings of the evaluation: what each metric looks at must be there."""

from pathlib import Path

import pytest

from lisa_video.errors import UserError
from lisa_video.evaluation_config import METRICS, EvaluateConfig

FOLDER = Path("folder")


def test_metrics_are_names_separated_by_commas() -> None:
    config = EvaluateConfig(fake=FOLDER, real=FOLDER, metrics=" psnr, fvd,psnr ")
    assert config.metric_names == ["psnr", "fvd"]
    assert config.asked(("fvd", "kvd")) == ["fvd"]


@pytest.mark.parametrize("metrics", ["fvd,psrn", "", "fvd;pck"])
def test_unknown_metrics_list_the_known_ones(metrics: str) -> None:
    with pytest.raises(UserError, match=f"known: {', '.join(METRICS)}"):
        EvaluateConfig(fake=FOLDER, real=FOLDER, metrics=metrics)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metrics": "fvd", "fake": FOLDER}, "'fvd' needs real"),
        ({"metrics": "ssim", "real": FOLDER}, "'ssim' needs fake"),
        ({"metrics": "flicker"}, "'flicker' needs fake"),
        ({"metrics": "oks", "fake": FOLDER}, "'oks' needs poses"),
        ({"metrics": "pck", "poses": FOLDER}, "'pck' needs fake or fake_poses"),
        ({"metrics": "fid", "fake": FOLDER, "real": FOLDER}, "'fid' needs fid_network"),
        ({"metrics": "lpips", "fake": FOLDER, "real": FOLDER}, "'lpips' needs lpips_network"),
        ({"metrics": "flicker", "fake": FOLDER, "statistics": FOLDER}, "not among the metrics"),
        ({"metrics": "flicker", "fake": FOLDER, "draws": 5}, "draws=5: give 0, or at least 10"),
        ({"metrics": "flicker", "fake": FOLDER, "batch_size": -1}, "batch_size=-1"),
    ],
)
def test_inputs_that_a_metric_needs(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EvaluateConfig(**given)

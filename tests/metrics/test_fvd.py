"""FVD: the published noise case, and what a result says about itself."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from einops import rearrange

from lisa_video.errors import UserError
from lisa_video.metrics.extractors import FeatureExtractor, build_extractor
from lisa_video.metrics.frechet import sample_distance
from lisa_video.metrics.fvd import (
    feature_source,
    features_of_clips,
    frechet_of_features,
    fvd_of_clips,
    infinity_of_features,
    kernel_of_features,
)
from lisa_video.metrics.i3d_weights import load_i3d, published_weights
from lisa_video.metrics.presets import PRESETS, fvd_preset
from lisa_video.metrics.sampling import ClipSampling
from lisa_video.metrics.statistics import FeatureStatistics
from tests.metrics.networks import colour_network

PRESET = fvd_preset("original")


@cache
def noise_features(seed: int, count: int) -> np.ndarray:
    """Logits of the clips of universome/fvd-comparison's compare_metrics.py, fed as they are."""
    network = load_i3d(published_weights(), 2).to(memory_format=torch.channels_last_3d)
    random, found = np.random.RandomState(seed), []
    for _ in range(0, count, 4):
        clips = random.rand(4, 16, 224, 224, 3).astype(np.float32)
        with torch.inference_mode():
            found.append(network(rearrange(torch.from_numpy(clips), "b t h w c -> b c t h w")))
    return torch.cat(found).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("count", "published"), [(32, 30.8196), (128, 10.13808)])
def test_the_published_noise_case(count: int, published: float) -> None:
    fake, real = noise_features(1, count), noise_features(2, count)
    assert sample_distance(real, fake, ddof=1) == pytest.approx(published, abs=1e-3)


def moving_clips(count: int, seed: int, size: int = 20) -> np.ndarray:
    """Clips of 16 frames: a grey level of their own, and noise that changes more or less."""
    random = np.random.RandomState(seed)
    base = random.randint(40, 200, (count, 1, 1, 1, 3))
    noise = random.randint(-20, 20, (count, 16, size, size, 3))
    return (base + noise * random.rand(count, 1, 1, 1, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> FeatureExtractor:
    return build_extractor(str(colour_network(tmp_path_factory.mktemp("network"))), PRESET)


def test_fvd_of_clips_in_memory() -> None:
    """With the published network, fetched by itself, on the shortest clips that it takes."""
    real, fake = moving_clips(3, 0)[:, :9], moving_clips(2, 1)[:, :9]
    found = fvd_of_clips(real, fake, preset="stylegan-v")
    assert (found.name, found.preset, found.ddof) == ("FVD", "stylegan-v", 0)
    assert (found.real, found.fake, found.dimension) == (3, 2, 400)
    assert found.value > 1
    assert any("N = 2 does not exceed D = 400" in line for line in found.warnings)


def test_clips_are_at_no_distance_from_themselves(colours: FeatureExtractor) -> None:
    clips = moving_clips(12, 0)
    found = fvd_of_clips(clips, clips[::-1], extractor=colours)
    assert found.name == "FD-colours"
    assert found.value < 1e-6


def test_clips_of_the_same_length_only(colours: FeatureExtractor) -> None:
    clips = moving_clips(3, 0)
    with pytest.raises(UserError, match="real clips have 16 frames, generated 12"):
        fvd_of_clips(clips, clips[:, :12], extractor=colours)
    with pytest.raises(UserError, match="colours needs clips of 9 frames, they have 8"):
        fvd_of_clips(clips[:, :8], clips[:, :8], extractor=colours)
    with pytest.raises(UserError, match="1 generated clip"):
        fvd_of_clips(clips, clips[:1], extractor=colours)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_the_last_batch_counts(colours: FeatureExtractor, batch_size: int) -> None:
    clips = moving_clips(7, 0)
    found = features_of_clips(clips, colours, batch_size)
    np.testing.assert_allclose(found, colours(clips), rtol=1e-6)


def samples(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(seed / 4, size=(count, 5)).astype(np.float32)


def test_results_say_how_they_were_made() -> None:
    real, fake = samples(300, 0), samples(280, 1)
    for name, preset in PRESETS.items():
        found = frechet_of_features(real, fake, preset=preset, name="FD-x", draws=20)
        assert found.value == sample_distance(real, fake, preset.ddof)
        assert (found.preset, found.ddof, found.warnings) == (name, preset.ddof, [])
        assert found.interval is not None
        assert found.interval.low < found.value < found.interval.high
    kernel = kernel_of_features(real, fake, preset=PRESET, name="KD-x", draws=20)
    assert kernel.ddof is None and kernel.interval is not None and kernel.value > 0
    limit = infinity_of_features(real, fake, preset=PRESET, name="FD-infinity-x")
    assert limit.extrapolation is not None
    truth = 5 * (1 / 4) ** 2
    assert abs(limit.value - truth) < abs(found.value - truth)


def test_few_clips_are_warned_of() -> None:
    found = frechet_of_features(samples(255, 0), samples(300, 1), preset=PRESET, name="FD-x")
    assert found.interval is None
    (line,) = found.warnings
    assert line.startswith("only 255 clips on one side: below 256")
    with pytest.raises(UserError, match="0 generated clip"):
        kernel_of_features(samples(3, 0), samples(0, 1), preset=PRESET, name="KD-x")


def test_kept_statistics_stand_for_the_clips() -> None:
    real, fake = samples(300, 0), samples(280, 1)
    kept = frechet_of_features(
        FeatureStatistics.of(real), fake, preset=PRESET, name="FD-x", draws=5
    )
    assert kept.value == pytest.approx(sample_distance(real, fake, 1), rel=1e-9)
    assert kept.interval is None and "not only their statistics" in kept.warnings[0]
    with pytest.raises(UserError, match="statistics of 4 features, clips have 5"):
        frechet_of_features(FeatureStatistics.of(real[:, :4]), fake, preset=PRESET, name="FD-x")


def test_sources_differ_by_what_changes_features(tmp_path: Path) -> None:
    network = str(colour_network(tmp_path))
    first = build_extractor(network, PRESET)
    source = feature_source(first, PRESET, ClipSampling())
    assert source == feature_source(build_extractor(network, PRESET), PRESET, ClipSampling())
    assert source != feature_source(first, PRESET, ClipSampling(stride=2))
    cropped = build_extractor(network, fvd_preset("junyaohu"))
    assert source.preprocessing != feature_source(cropped, PRESET, ClipSampling()).preprocessing

"""The model card of a shared side network, from the record of its run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lisa_video.sharing.config import HUB_NAME
from lisa_video.training.report import MEANINGS
from lisa_video.training.run_record import RunSummary

_BACKBONE_OPTIONS = ("motion_adapter", "beta_schedule", "text_tokens")
_PAPER = "https://arxiv.org/abs/2606.27192"
_FEW_FIGURES = ("validation/", "probe/", "loss", "main", "alignment", "explained")


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the record."""

    title: str
    license: str
    backbone: str
    """Hub name, or the name of a folder."""
    samples: Sequence[str]
    """Files in the folder `samples`."""
    sheet: str | None
    """Picture of them."""
    controlnet: bool
    """Whether there is a folder `controlnet`."""
    lora: bool
    """Whether there is a folder `lora`, with adapters of the backbone."""


def model_card(run: RunSummary, facts: CardFacts) -> str:
    """README.md in the hub's form; holds no path of the machine that trained."""
    return "\n\n".join(part for part in _parts(run, facts) if part) + "\n"


def plain_settings(value: Any) -> Any:
    """Settings in which files and folders of the machine are named without the way to them."""
    if isinstance(value, Mapping):
        return {key: plain_settings(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_settings(item) for item in value]
    return Path(value).name if isinstance(value, str) and _is_path(value) else value


def _parts(run: RunSummary, facts: CardFacts) -> Sequence[str]:
    return (
        _front_matter(run, facts),
        f"# {facts.title}",
        _introduction(run, facts),
        f"![held-out clips at the end of training]({facts.sheet})" if facts.sheet else "",
        _usage(run, facts),
        _controlnet() if facts.controlnet else "",
        _figures(run),
        _training(run),
        "## Settings\n\n```yaml\n"
        + yaml.safe_dump(plain_settings(run.config), sort_keys=False, allow_unicode=True)
        + "```",
    )


def _front_matter(run: RunSummary, facts: CardFacts) -> str:
    values: dict[str, Any] = {
        "license": facts.license,
        "library_name": "lisa_video",
        "tags": ["pose-to-video", "video-generation", run.backbone.get("kind", "")],
    }
    if HUB_NAME.fullmatch(facts.backbone):
        values["base_model"] = facts.backbone
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _introduction(run: RunSummary, facts: CardFacts) -> str:
    objective = {"lisa": f"LISA ([likelihood score alignment]({_PAPER}))"}.get(
        run.config.get("objective", "")
    )
    condition = run.config.get("data", {}).get("condition", "pose")
    return (
        f"A side network that steers `{facts.backbone}` by {condition} frames, trained with "
        f"{objective or 'the plain objective'}, {run.step} steps. It loads with that backbone only: "
        f"it knows its weights by their fingerprint, `{run.backbone.get('fingerprint', '')[:12]}`."
    )


def _usage(run: RunSummary, facts: CardFacts) -> str:
    settings = run.config.get("backbone", {})
    options = {"kind": run.backbone.get("kind", "animatediff")}
    options |= {key: settings[key] for key in _BACKBONE_OPTIONS if settings.get(key) is not None}
    given = "".join(
        f", {key}={json.dumps(plain_settings(value))}" for key, value in options.items()
    )
    lora = (
        '\nload_lora(pipeline.main_network, Path("THIS_FOLDER/lora"), pipeline.backbone.network_name)'
        if facts.lora
        else ""
    )
    imports = (
        "from pathlib import Path\n\nfrom lisa_video.adapters import load_lora\n" if lora else ""
    )
    return f"""## Use

```python
{imports}from lisa_video.pipeline import PoseToVideoPipeline
from lisa_video.poses import PoseSequence

pipeline = PoseToVideoPipeline.from_pretrained("{facts.backbone}", side_network="THIS_FOLDER"{given}){lora}
video = pipeline("a prompt", PoseSequence.load("poses.npz")).frames
```"""


def _controlnet() -> str:
    return """For plain diffusers there is the same network as a ControlNet of Stable Diffusion, which looks at
each frame alone:

```python
from diffusers import ControlNetModel

controlnet = ControlNetModel.from_pretrained("THIS_FOLDER/controlnet")
```"""


def _figures(run: RunSummary) -> str:
    known = {
        name: value
        for name, value in run.figures.items()
        if value is not None and name.startswith(_FEW_FIGURES) and name in MEANINGS
    }
    if not known:
        return ""
    rows = [f"| {name} | {value:.4g} | {MEANINGS[name]} |" for name, value in known.items()]
    return "\n".join(
        ["## Figures\n", "| figure | value | what it is |", "| --- | --- | --- |", *rows]
    )


def _training(run: RunSummary) -> str:
    data = run.config.get("data", {})
    hardware = run.hardware
    machine = ", ".join(
        [*(gpu["name"] for gpu in hardware.get("gpus", [])), str(hardware.get("cpu", ""))]
    )
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    rows = {
        "clips": f"{Path(str(data.get('root', ''))).name}, fingerprint `{run.data[:12]}`",
        "steps": f"{run.step} of {run.steps}",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in run.seeds.items()),
        "interruptions": str(len(run.history)),
        "machine": f"{machine}; processes: {hardware.get('processes', 1)}",
        "code": f"commit {run.git[:12] if run.git else 'unknown'}, sources `{run.sources[:12]}`",
        "versions": versions,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["## Training\n", "| | |", "| --- | --- |", *lines])


def _is_path(text: str) -> bool:
    return Path(text).is_absolute() or "\\" in text

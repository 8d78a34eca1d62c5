"""What an encoding depends on, as a key: change any of it and the key is another one.

The latents of a clip depend on the video's bytes, the view of it, the VAE and how pixels are made
from the video; text states depend on the caption, the tokenizer and the text encoder. The machine
is not among it: encodings made on a GPU differ in their last bits from those made on a CPU.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from lisa_video.backbones.base import VideoBackbone
from lisa_video.views import View

PREPROCESSING_VERSION = 1
"""Of the way from a video to pixels (`view_frames`: decoding, scaling and its interpolation) and
from pixels to what is stored. Count up where any of it changes."""

_KEY_DIGITS = 32


@dataclass(frozen=True)
class EncoderKeys:
    """The frozen encoders of a backbone, each as a hash of weights, settings and dtype."""

    vae: str
    """Of what makes latents."""
    text: str
    """Of what makes text states, with the tokenizer."""

    @classmethod
    def of(cls, backbone: VideoBackbone) -> EncoderKeys:
        """Loads no encoder, but may read the files of its weights, so ask once."""
        text = {
            "model": backbone.encoders["text_encoder"].key(),
            "tokenizer": tokenizer_settings(backbone.tokenizer),
            "tokens": getattr(backbone, "text_tokens", None),
        }
        return cls(
            _hash(["vae", backbone.kind, backbone.encoders["vae"].key()]),
            _hash(["text", backbone.kind, text]),
        )

    def latents(self, video: str, view: View) -> str:
        """Key of the latents (C, T, h, w) of one view of the video with this SHA-256."""
        return _hash(["latents", PREPROCESSING_VERSION, self.vae, video, asdict(view.picture)])

    def states(self, caption: str) -> str:
        """Key of the text states (L, D) of a caption."""
        return _hash(["states", PREPROCESSING_VERSION, self.text, caption])


def tokenizer_settings(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What decides which tokens a prompt becomes; padding, which changes with use, is not in it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    pieces: Any = tokenizer.get_vocab()
    if backend is not None:
        pieces = json.loads(backend.to_str())
        pieces = {
            key: value for key, value in pieces.items() if key not in ("padding", "truncation")
        }
    return {
        "class": type(tokenizer).__name__,
        "pieces": pieces,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "length": tokenizer.model_max_length,
        "sides": [tokenizer.padding_side, tokenizer.truncation_side],
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()[:_KEY_DIGITS]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)

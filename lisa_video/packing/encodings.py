"""Encodings read from a packed set, in place of a cache.

Shapes: N clips of a split, C latent channels, T latent frames, h w latent cells, L tokens of text,
D text width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from lisa_video.caching.keys import EncoderKeys
from lisa_video.errors import UserError
from lisa_video.packing.packed_set import PackedSet


class PackedEncodings:
    """Encodings from a packed set; see `Encodings`.

    `rows` (N,) are the places of the clips in the packed set. Raises UserError where it was packed
    with other encoders than `keys` are of.
    """

    def __init__(self, packed: PackedSet, rows: NDArray[np.int64], keys: EncoderKeys) -> None:
        if packed.index.models != [keys.vae, keys.text]:
            raise UserError(
                f"{packed.storage.url}: holds encodings by another VAE or text encoder than this "
                "backbone's; pack those of a cache of this backbone"
            )
        self.packed, self.rows = packed, rows
        self._empty_key = keys.states("")
        self._last: tuple[int, dict[str, Tensor]] | None = None

    def read(self, clip: int, key: str) -> Tensor:
        if key == self._empty_key:
            assert self.packed.index.empty_states is not None
            return self.packed.index.empty_states
        row = int(self.rows[clip])
        if self._last is None or self._last[0] != row or key not in self._last[1]:
            self._last = row, self._load(row, self.require(clip, key))
        return self._last[1][key]

    def require(self, clip: int, key: str) -> int:
        """The view of a clip whose latents have this key; UserError where it has none."""
        view = self.packed.index.view_of(int(self.rows[clip]), key)
        if view is None:
            raise UserError(
                f"{self.packed.storage.url}: does not hold the encodings of clip "
                f"{self.rows[clip]:09d} that this run asks for: it was packed with other settings "
                "or captions"
            )
        return view

    def _load(self, row: int, view: int) -> dict[str, Tensor]:
        files = self.packed.read(row, 1 + view)
        try:
            return {name: each.clone() for name, each in load(files[f"{view}.safetensors"]).items()}
        except (SafetensorError, LookupError, ValueError) as error:
            raise self._damaged(row, str(error)) from None

    def _damaged(self, row: int, problem: str) -> UserError:
        return UserError(
            f"{self.packed.storage.url}: clip {row:09d}: {problem}; pack the set again"
        )

"""The setting that chooses an attention kernel. Imports nothing heavy."""

from typing import Literal

AttentionChoice = Literal["auto", "sdpa", "flash", "xformers", "sage", "math"]

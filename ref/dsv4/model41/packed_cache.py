"""The cache as the released V4.1 stores it: FP8 window keys, FP4 entries, FP4 index keys (report §2.4.4).

A model that rounds its activations makes rows that these formats hold exactly, so a packed cache changes no result.
Index keys are V4's (`dsv4.model.packed_cache.KeyCoding`).
"""

from dsv4.model.packed_cache import PackedCoding
from dsv4.ops.moe41 import MX_BLOCK
from dsv4.ops.packed_rows import Fp8Format, Nvfp4Format, RowFormat


class WindowCoding41(PackedCoding):
    """A window key."""

    @property
    def form(self) -> RowFormat:
        """528 bytes for 512 channels."""
        return Fp8Format(self.channels, MX_BLOCK)


class EntryCoding41(PackedCoding):
    """An entry. channels: an even number."""

    @property
    def form(self) -> RowFormat:
        """288 bytes for 512 channels."""
        return Nvfp4Format(self.channels)

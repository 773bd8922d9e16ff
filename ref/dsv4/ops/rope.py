"""Rotary position embedding on the last channels, with YaRN's frequencies (report §2.3.3)."""

import math

import numpy as np

from dsv4.ops.types import Array, Ints


def rope(x: Array, positions: Ints, frequencies: Array) -> Array:
    """Rotate the last 2·len(frequencies) channels of x, in pairs (2i, 2i+1), by position · frequency_i.

    x [B, S, c] or [B, S, H, c] float; positions [B, S] integer; frequencies [r/2] float, radians per token. Returns
    the same shape and dtype; the first c − r channels are as they were. The inverse rotation is that by −positions.
    The angle is a product in x's dtype, as in the code that trained the weights: in float32 it is off by up to 0.03
    radians at position 10⁶. No amplitude is scaled. Raises ValueError where positions or frequencies do not fit x.
    Source: report §2.3.3; code: apply_rotary_emb, interleaved.
    """
    if positions.shape != x.shape[:2]:
        raise ValueError(f"rope: positions must have shape {x.shape[:2]}, found {positions.shape}")
    rotated = 2 * len(frequencies)
    if not 0 < rotated <= x.shape[-1]:
        raise ValueError(
            f"rope: x has {x.shape[-1]} channels, so 1 … {x.shape[-1] // 2} frequencies, found {rotated // 2}"
        )
    angle = positions.astype(x.dtype)[..., None] * frequencies.astype(x.dtype)  # [B, S, r/2]
    angle = angle.reshape(*positions.shape, *[1] * (x.ndim - 3), len(frequencies))  # [B, S, (1,) r/2]
    cos, sin = np.cos(angle), np.sin(angle)
    unrotated, even, odd = x[..., :-rotated], x[..., -rotated::2], x[..., 1 - rotated :: 2]
    pairs = np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)  # [..., r/2, 2]
    return np.concatenate([unrotated, pairs.reshape(*x.shape[:-1], rotated)], axis=-1)


def rope_frequencies(rotated: int, base: float) -> Array:
    """The plain RoPE frequencies base^(−2i/r), i = 0 … r/2−1, in radians per token.

    rotated: r, the even number of rotated channels. Returns [r/2] float32, rounded where the code that trained the
    weights rounds: each power, and its reciprocal. Exact ones would be up to 0.015 radians away at position 10⁶. The
    powers are computed in float64, since NumPy's float32 powers are not always the nearest. Source: report §2.3.3;
    code: precompute_freqs_cis.
    """
    exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated)
    powers = (np.float64(base) ** exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1) / powers


def yarn_frequencies(
    rotated: int, base: float, factor: float, original_context: int, beta_fast: float, beta_slow: float
) -> Array:
    """YaRN's frequencies: fast channels as they are, slow ones divided by `factor`, a ramp between.

    A channel that turns more than beta_fast times within original_context tokens is fast; one that turns less than
    beta_slow times is slow. Returns [r/2] float32, radians per token, rounded where the code that trained the weights
    rounds. There is no amplitude factor on cos and sin and none on the logits. Source: report §2.3.3; code:
    precompute_freqs_cis.
    """

    def channel_that_turns(times: float) -> float:
        return rotated * math.log(original_context / (2 * math.pi * times)) / (2 * math.log(base))

    low = max(math.floor(channel_that_turns(beta_fast)), 0)
    high = min(math.ceil(channel_that_turns(beta_slow)), rotated - 1)
    width = np.float32(high - low or 0.001)
    fast = 1 - np.clip((np.arange(rotated // 2, dtype=np.float32) - np.float32(low)) / width, 0, 1)
    plain = rope_frequencies(rotated, base)
    frequencies: Array = plain / np.float32(factor) * (1 - fast) + plain * fast
    return frequencies

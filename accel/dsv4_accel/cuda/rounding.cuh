#pragma once
// Blocks of channels that a few lanes of a warp round with one scale.
#include "formats.cuh"
#include "vectors.cuh"
#include "warp.cuh"

// The largest of one value of each of `lanes` neighbouring threads, a power of two, for each of them.
__device__ __forceinline__ float largest_of(float value, int lanes) {
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    return value;
}

// Four numbers of a block that so many neighbouring lanes share, rounded. Those that do not count have no part in its scale.
template <class Format>
__device__ __forceinline__ float4 rounded_in_block(float4 own, bool counts, int lanes) {
    const float first = fmaxf(magnitude_of(own.x), magnitude_of(own.y));
    const float second = fmaxf(magnitude_of(own.z), magnitude_of(own.w));
    const BlockScale<Format> block(largest_of(counts ? fmaxf(first, second) : 0, lanes));
    return make_float4(block.rounded(own.x), block.rounded(own.y), block.rounded(own.z), block.rounded(own.w));
}

#pragma once
// A token's streams of the hyper-connections, read together.
#include "vectors.cuh"

// A token's numbers of one channel: old[j] of stream j, for j < n. Numbers: a float, or four of neighbouring channels.
template <class Numbers, int MOST>
__device__ __forceinline__ void read_streams(Numbers (&old)[MOST], const Numbers* streams, int n, int channels) {
#pragma unroll
    for (int j = 0; j < MOST; ++j)
        if (j < n) old[j] = streams[static_cast<long long>(j) * channels];
}

// A token's channel collapsed: its numbers in all streams, each times the share of its stream. pre [n]
template <int MOST, class Numbers>
__device__ __forceinline__ Numbers collapsed(const Numbers* streams, const float* pre, int n, int channels) {
    Numbers old[MOST], total = {};
    read_streams(old, streams, n, channels);
#pragma unroll
    for (int j = 0; j < MOST; ++j)
        if (j < n) total = add_scaled(total, pre[j], old[j]);
    return total;
}

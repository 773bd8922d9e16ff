#pragma once
// The sum of the values of all threads before each one.
#include "warp.cuh"

// The sum of `value` over the threads of the block before this one, and in `total` over all of them. Blocks of whole
// warps, 1024 threads at most.
__device__ __forceinline__ int block_prefix(int value, int& total) {
    __shared__ int sums[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    int sum = value;
    for (int distance = 1; distance < WARP; distance *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, sum, distance);
        if (lane >= distance) sum += other;
    }
    __syncthreads();  // whoever reads the sums of a call before has done so
    if (lane == WARP - 1) sums[warp] = sum;
    __syncthreads();
    int before = 0;
    total = 0;
    for (int other = 0; other < warps; ++other) {
        if (other < warp) before += sums[other];
        total += sums[other];
    }
    return before + sum - value;
}

#pragma once
// Sums and maxima over the threads of a warp and of a block. Each is formed in one fixed order, so it has the same bits
// in every run and in every block.

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

__device__ __forceinline__ float warp_max(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    return value;
}

// The sum of one value of each thread of the block, for every thread. Blocks of whole warps, 1024 threads at most.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float sums[WARP];
    const int warps = blockDim.x / WARP;
    value = warp_sum(value);
    __syncthreads();  // whoever reads the sums of a call before has done so
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = value;
    __syncthreads();
    float total = 0;
    for (int warp = 0; warp < warps; ++warp) total += sums[warp];
    return total;
}

#pragma once
// Sums and maxima over the threads of a warp and of a block. Each is formed in one fixed order, so it has the same bits
// in every run and in every block.

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

// Several sums at once, in fewer exchanges, with the bits of warp_sum: COUNT values of each lane, a power of two of at most
// 32, become the sum of values[lane / (32 / COUNT)], for each lane. The values are used up.
template <int COUNT>
__device__ __forceinline__ float warp_sums(float (&values)[COUNT]) {
    int distance = WARP / 2;
#pragma unroll
    for (int left = COUNT / 2; left > 0; left /= 2, distance /= 2) {
        const bool is_upper = threadIdx.x & distance;  // keeps the upper half of the values
#pragma unroll
        for (int i = 0; i < left; ++i) {
            const float kept = is_upper ? values[left + i] : values[i], sent = is_upper ? values[i] : values[left + i];
            values[i] = kept + __shfl_xor_sync(ALL_LANES, sent, distance);
        }
    }
    float value = values[0];
    for (; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
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

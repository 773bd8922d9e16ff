#pragma once
// Rows of the Walsh–Hadamard rotation in shared memory, by a block.
#include "rounding.cuh"

constexpr int FP4_LANES = 8;  // of a block of 32 channels

// log2(width) rounds of sums and differences; barriers come before the first and behind the last. `count` numbers are
// whole rows.
__device__ __forceinline__ void rotate_rows(float* numbers, int count, int width) {
    for (int distance = 1; distance < width; distance *= 2) {
        __syncthreads();
        for (int pair = threadIdx.x; pair < count / 2; pair += blockDim.x) {
            const int low = pair / distance * 2 * distance + pair % distance, high = low + distance;
            const float sum = numbers[low] + numbers[high];
            numbers[high] = numbers[low] - numbers[high];
            numbers[low] = sum;
        }
    }
    __syncthreads();
}

// What is rotated, times the factor.
__device__ __forceinline__ void write_rows(const float* numbers, int count, float factor, float* out) {
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[i] = numbers[i] * factor;
}

// The same rounded to FP4 in blocks of 32, which the rows are made of.
__device__ __forceinline__ void write_rounded_rows(const float* numbers, int count, float factor, float* out) {
    for (int start = 0; start < count; start += 4 * blockDim.x) {  // for whole warps, which share blocks
        const int i = start + 4 * threadIdx.x;
        const bool exists = i < count;
        const float4 own = exists ? vector_at(numbers + i) : make_float4(0, 0, 0, 0);
        const float4 scaled = make_float4(own.x * factor, own.y * factor, own.z * factor, own.w * factor);
        const float4 result = rounded_in_block<Fp4>(scaled, exists, FP4_LANES);
        if (exists) put(out + i, result);
    }
}

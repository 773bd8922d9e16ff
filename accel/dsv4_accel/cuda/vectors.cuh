#pragma once
// Four neighbouring numbers at once, the widest load of a thread. Their address is a multiple of 16.

__device__ __forceinline__ float4 vector_at(const float* place) { return *reinterpret_cast<const float4*>(place); }

__device__ __forceinline__ void put(float* place, float4 numbers) { *reinterpret_cast<float4*>(place) = numbers; }

// sum + a · b, from the first of the numbers to the last.
__device__ __forceinline__ float dot(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// sum + factor · x, for one number and for four, which get the same bits.
__device__ __forceinline__ float add_scaled(float sum, float factor, float x) { return fmaf(factor, x, sum); }

__device__ __forceinline__ float4 add_scaled(float4 sum, float factor, float4 x) {
    return make_float4(fmaf(factor, x.x, sum.x), fmaf(factor, x.y, sum.y), fmaf(factor, x.z, sum.z), fmaf(factor, x.w, sum.w));
}

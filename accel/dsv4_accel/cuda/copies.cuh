#pragma once
// Vectors of floats, and their way into shared memory: copies that take no register and that nobody waits for
// until the numbers are needed.

__device__ __forceinline__ float4 vector_at(const float* place) { return *reinterpret_cast<const float4*>(place); }
__device__ __forceinline__ float2 pair_at(const float* place) { return *reinterpret_cast<const float2*>(place); }

// Begin to copy four floats to shared memory. Both places are aligned to 16 bytes.
__device__ __forceinline__ void begin_copy(float* to, const float* from) {
#ifdef __CUDACC__
    const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(from) : "memory");
#else
    *reinterpret_cast<float4*>(to) = vector_at(from);
#endif
}

__device__ __forceinline__ void store_zeros(float* to) { *reinterpret_cast<float4*>(to) = make_float4(0, 0, 0, 0); }

// What this thread has begun to copy since the last call is one group.
__device__ __forceinline__ void end_group() {
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most so many of this thread's groups, the last ones, are still on their way. Others see what has come
// only after a barrier.
template <int groups>
__device__ __forceinline__ void wait_for_all_but() {
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

// sum + a · b, one product after the other.
__device__ __forceinline__ float add_products(float sum, const float2& a, const float2& b) {
    return fmaf(a.y, b.y, fmaf(a.x, b.x, sum));
}
__device__ __forceinline__ float add_products(float sum, const float4& a, const float4& b) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

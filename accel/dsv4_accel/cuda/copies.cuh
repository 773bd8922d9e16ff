#pragma once
// Copies to shared memory that take no register, and that nobody waits for until the numbers are needed.
#include "vectors.cuh"

// Begin to copy four floats to shared memory. Both places are aligned to 16 bytes.
__device__ __forceinline__ void begin_copy(float* to, const float* from) {
#ifdef __CUDACC__
    const unsigned place = static_cast<unsigned>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(place), "l"(from) : "memory");
#else
    put(to, vector_at(from));
#endif
}

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

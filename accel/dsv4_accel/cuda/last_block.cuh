#pragma once
// A launch whose last block goes on with what all blocks have left in memory, so that it needs no second launch.

// Whether this block is the last of so many that come here with the same counter, for all of its threads. It then sees
// what the others wrote before, if it reads that by `fresh`. The counter is 0 before and after.
__device__ __forceinline__ bool is_last_block(unsigned* arrived, unsigned blocks) {
    __shared__ bool is_last;
    __threadfence();  // what this thread wrote is there for all, before its block counts as arrived
    __syncthreads();
    if (threadIdx.x == 0) {
        is_last = atomicAdd(arrived, 1u) + 1 == blocks;
        if (is_last) *arrived = 0;
    }
    __syncthreads();
    if (is_last) __threadfence();
    return is_last;
}

// A number that another block wrote in this launch: from the second level's cache, since the first level's may be older.
__device__ __forceinline__ float fresh(const float* place) { return __ldcg(place); }

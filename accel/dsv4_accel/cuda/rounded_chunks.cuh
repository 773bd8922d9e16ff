#pragma once
// Rows that a launch computes, rounded for the product behind it by the same launch: whichever block of a chunk is done
// last rounds it. So few rows need no second launch.
#include "activations.cuh"
#include "last_block.cuh"

// Room for rows rounded to FP8, one piece each: pieces [rows, 128 · chunks], units [rows]; arrived: counters of 0, one for
// each chunk and `group`. All null where nobody wants them.
struct Rounded {
    unsigned short* pieces;
    float* units;
    unsigned* arrived;

    // The block has written some numbers of a chunk of the rows `row(0)` … `row(count − 1)` of `width` numbers, as `blocks`
    // blocks do in all. `value(row, i)` gives number i of a row, read by `fresh`.
    template <class Row, class Value>
    __device__ __forceinline__ void finish(
        int group, int width, int chunk, unsigned blocks, int count, const Row& row, const Value& value) const {
        const int chunks = (width + CHUNK - 1) / CHUNK;
        if (!arrived || !is_last_block(arrived + group * chunks + chunk, blocks)) return;
        for (int number = threadIdx.x / WARP; number < count; number += blockDim.x / WARP) {
            const long long own = row(number);
            if (chunk == 0 && threadIdx.x % WARP == 0) units[own] = 1;
            write_chunk(width, true, 1, [&](int i) { return value(own, i); }, pieces, own, 0, chunks, chunk);
        }
    }
};

// How many blocks of `height` rows of a matrix, a divisor of a chunk, make one chunk of what it gives.
__device__ __forceinline__ unsigned blocks_of_chunk(int rows, int chunk, int height) {
    return (min(rows - chunk * CHUNK, CHUNK) + height - 1) / height;
}

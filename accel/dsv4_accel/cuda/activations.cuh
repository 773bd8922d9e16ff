#pragma once
// Rows of activations as bfloat16 pieces, in the order in which products read them (weights.cuh).
#include "formats.cuh"
#include "weights.cuh"

// Where column `column` of a chunk stands: the words of the four lanes that share a row lie side by side, so that they
// read them together, and in a word the columns stand in pairs (0, 4), (1, 5), (2, 6), (3, 7).
__device__ __forceinline__ int place_of(int column) {
    const int quarter = column / LANE_COLUMNS, word = column % LANE_COLUMNS / 8, i = column % 8;
    return (word * 4 + quarter) * 8 + (i % 4) * 2 + i / 4;
}

constexpr float TINY = 0x1p-100f, RAISE = 0x1p40f;

// The largest finite magnitude of a block's values; `value(i)` gives number i of `width`.
template <class Value>
__device__ __forceinline__ float largest_of(int width, const Value& value) {
    __shared__ float largest_of_warp[WARP];
    float largest = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float magnitude = fabsf(value(i));
        if (magnitude <= LARGEST_FLOAT) largest = fmaxf(largest, magnitude);
    }
    largest = warp_max(largest);
    if (threadIdx.x % WARP == 0) largest_of_warp[threadIdx.x / WARP] = largest;
    __syncthreads();
    for (int warp = 0; warp < (int)blockDim.x / WARP; ++warp) largest = fmaxf(largest, largest_of_warp[warp]);
    return largest;
}

// Four numbers of a warp's chunk, rounded to FP8 with one scale for the chunk.
__device__ __forceinline__ void round_chunk(float (&numbers)[4]) {
    float largest = 0;
    for (float number : numbers) largest = fmaxf(largest, magnitude_of(number));
    const BlockScale<Fp8> scale(warp_max(largest));
    for (float& number : numbers) number = scale.rounded(number);
}

// One chunk of a row by a warp: `value(i)` gives number i of the row's `width`; raise: what each is multiplied with first.
template <class Value>
__device__ __forceinline__ void write_chunk(
    int width, bool rounds, float raise, const Value& value, unsigned short* pieces, long long row, long long rows,
    int chunks, int chunk) {
    const int lane = threadIdx.x % WARP;
    float numbers[4];
    for (int i = 0; i < 4; ++i) {
        const int column = chunk * CHUNK + 4 * lane + i;
        numbers[i] = column < width ? value(column) * raise : 0.0f;
    }
    if (rounds) round_chunk(numbers);
    for (int piece = 0; piece < (rounds ? 1 : 3); ++piece) {
        unsigned short* target = pieces + ((piece * rows + row) * chunks + chunk) * CHUNK;
        for (int i = 0; i < 4; ++i)
            target[place_of(4 * lane + i)] = static_cast<unsigned short>(piece_of(numbers[i], piece));
    }
}

// One row by the block: `value(i)` gives number i of `width`. Rounded to FP8 a number is one piece, otherwise it is
// three. pieces [1 or 3, rows, 128·chunks]; units [rows]: what products with the row are to be multiplied with. Numbers
// whose pieces bfloat16 has no room for are raised first.
template <class Value>
__device__ __forceinline__ void write_pieces(
    int width, bool rounds, const Value& value, unsigned short* pieces, float* units, long long row, long long rows) {
    const int warp = threadIdx.x / WARP, chunks = (width + CHUNK - 1) / CHUNK;
    const float raise = !rounds && largest_of(width, value) < TINY ? RAISE : 1.0f;
    if (threadIdx.x == 0) units[row] = 1.0f / raise;
    for (int chunk = warp; chunk < chunks; chunk += blockDim.x / WARP)
        write_chunk(width, rounds, raise, value, pieces, row, rows, chunks, chunk);
}

#pragma once
// Stored weights as pairs of bfloat16, decoded in registers.
//
// The columns of a row go in chunks of 128. Of each a lane has 32 side by side, in four words of 8; a word gives the
// pairs (0, 4), (1, 5), (2, 6), (3, 7) of its columns, which is what FP4 gives with the fewest steps.
#include "mma.cuh"

constexpr int CHUNK = 128, LANE_COLUMNS = 32;

// A power of two by which both numbers of a pair are multiplied, in two factors where one would be too large. Exact but
// for FP8 with scale bytes below 3, where bfloat16 has no room for the last bits of numbers below 2^-124.
struct PairScale {
    unsigned first, second;
    bool is_large;
};

// 2^(scale − 127 + shift) for a scale byte; 255 is NaN. 126 >= shift >= 120.
__device__ __forceinline__ PairScale pair_scale(unsigned scale, int shift) {
    const int power = static_cast<int>(scale) - 127 + shift, first = min(power, 127);
    const unsigned bits = scale == 255 ? 0x7fc0u : static_cast<unsigned>(first + 127) << 7;
    const unsigned rest = static_cast<unsigned>(power - first + 127) << 7;
    return {bits * 0x10001u, rest * 0x10001u, power > 127};
}

__device__ __forceinline__ unsigned scaled(unsigned pair, const PairScale& scale) {
    const unsigned product = multiply_pairs(pair, scale.first);
    return scale.is_large ? multiply_pairs(product, scale.second) : product;
}

__device__ __forceinline__ uint4 load16(const void* place) { return __ldg(static_cast<const uint4*>(place)); }

__device__ __forceinline__ unsigned word_of(const uint4& vector, int number) {
    return number == 0 ? vector.x : number == 1 ? vector.y : number == 2 ? vector.z : vector.w;
}

// Each storage: the columns of one lane in one row and chunk, as loaded; and their pairs. `chunks` are those of a row.

// packed [rows, 64·chunks]; scales [rows, 4·chunks].
struct StoredFp4 {
    static constexpr int PIECES = 1;
    uint4 items;
    unsigned scale_byte;

    __device__ __forceinline__ void load(
        const unsigned char* packed, const unsigned char* scales, long long row, int chunks, int chunk) {
        const int quarter = threadIdx.x % 4;
        const long long block = (row * chunks + chunk) * 4 + quarter;
        items = load16(packed + 16 * block);
        scale_byte = __ldg(scales + block);
    }
    __device__ __forceinline__ PairScale scale() const { return pair_scale(scale_byte, 126); }
    __device__ __forceinline__ void pairs(const PairScale& scale, int number, int, unsigned (&result)[4]) const {
        unsigned codes = word_of(items, number);
        for (int i = 3; i >= 0; --i, codes <<= 4)  // the sign to the top, the rest to the end of the exponent
            result[i] = scaled((codes & 0x80008000u) | (codes & 0x70007000u) >> 6, scale);
    }
};

// codes [rows, 128·chunks]; scales [⌈rows/128⌉, chunks].
struct StoredFp8 {
    static constexpr int PIECES = 1;
    uint4 items[2];
    unsigned scale_byte;

    __device__ __forceinline__ void load(
        const unsigned char* codes, const unsigned char* scales, long long row, int chunks, int chunk) {
        const unsigned char* place = codes + (row * chunks + chunk) * CHUNK + threadIdx.x % 4 * LANE_COLUMNS;
        for (int i = 0; i < 2; ++i) items[i] = load16(place + 16 * i);
        scale_byte = __ldg(scales + row / 128 * chunks + chunk);
    }
    // NaN where a code is: it spoils its row whatever it is multiplied with.
    __device__ __forceinline__ PairScale scale() const {
        unsigned carries = 0;
        for (int number = 0; number < 8; ++number)
            carries |= (word_of(items[number / 4], number % 4) & 0x7f7f7f7fu) + 0x01010101u;
        return pair_scale(carries & 0x80808080u ? 255 : scale_byte, 120);
    }
    __device__ __forceinline__ void pairs(const PairScale& scale, int number, int, unsigned (&result)[4]) const {
        const uint4 codes_here = items[number / 2];
        const unsigned low = number % 2 ? codes_here.z : codes_here.x, high = number % 2 ? codes_here.w : codes_here.y;
        for (int i = 0; i < 4; ++i) {
            const unsigned codes = __byte_perm(low, high, i << 4 | (4 + i) << 12);  // to the upper byte of each half
            result[i] = scaled((codes & 0x80008000u) | (codes & 0x7f007f00u) >> 4, scale);
        }
    }
};

// bits [rows, 128·chunks] of bfloat16.
struct StoredBfloat {
    static constexpr int PIECES = 1;
    uint4 items[4];

    __device__ __forceinline__ void load(
        const unsigned char* bits, const unsigned char*, long long row, int chunks, int chunk) {
        const unsigned char* place = bits + 2 * ((row * chunks + chunk) * CHUNK + threadIdx.x % 4 * LANE_COLUMNS);
        for (int i = 0; i < 4; ++i) items[i] = load16(place + 16 * i);
    }
    __device__ __forceinline__ PairScale scale() const { return {}; }
    __device__ __forceinline__ void pairs(const PairScale&, int number, int, unsigned (&result)[4]) const {
        const uint4 word = items[number];
        result[0] = __byte_perm(word.x, word.z, 0x5410);
        result[1] = __byte_perm(word.x, word.z, 0x7632);
        result[2] = __byte_perm(word.y, word.w, 0x5410);
        result[3] = __byte_perm(word.y, word.w, 0x7632);
    }
};

// One of three bfloat16 that add up to a float exactly, as the lower half of a word.
__device__ __forceinline__ unsigned piece_of(float number, int piece) {
    if (!(fabsf(number) <= 3.40282346638528859812e38f))
        return piece > 0 ? 0 : number != number ? 0x7fc0u : __float_as_uint(number) >> 16;
    for (int i = 0; i < piece; ++i) number -= __uint_as_float(__float_as_uint(number) & 0xffff0000u);
    return __float_as_uint(number) >> 16;
}

// numbers [rows, 128·chunks] of float.
struct StoredFloat {
    static constexpr int PIECES = 3;
    const float* place;

    __device__ __forceinline__ void load(
        const unsigned char* numbers, const unsigned char*, long long row, int chunks, int chunk) {
        const float* all = reinterpret_cast<const float*>(numbers);
        place = all + (row * chunks + chunk) * CHUNK + threadIdx.x % 4 * LANE_COLUMNS;
    }
    __device__ __forceinline__ PairScale scale() const { return {}; }
    __device__ __forceinline__ void pairs(const PairScale&, int number, int piece, unsigned (&result)[4]) const {
        const uint4 low = load16(place + 8 * number), high = load16(place + 8 * number + 4);
        for (int i = 0; i < 4; ++i)
            result[i] = piece_of(__uint_as_float(word_of(low, i)), piece) |
                        piece_of(__uint_as_float(word_of(high, i)), piece) << 16;
    }
};

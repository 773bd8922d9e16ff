#pragma once
// Products of rows of activations with rows of a stored matrix, on the tensor cores.
//
// The matrix is the left factor of each small product and eight activations the right one, so that one token costs as
// many steps as eight. The sum over the columns is formed in four parts, one after the other in each, and the parts are
// added in their order. Where activations are few, each of a block's four warps forms one part for the same 16 rows, so
// that many blocks read a matrix; where they are many, each warp forms all parts for 16 rows of its own and 64
// activations. Both add in the same order, so a result has the same bits in either.
#include "weights.cuh"

constexpr int PARTS = 4, WARPS = 4, WARP_ROWS = 16, TILE = 8;

// What a block multiplies.
struct Product {
    const unsigned char *items, *scales;  // of the matrix, each row `chunks` whole chunks
    const unsigned short* x;  // [pieces, x_rows, 128 * chunks], see activations.cuh
    long long piece_size;
    int chunks, pieces, count;  // count: how many rows of x
};

// A pair with 0 for what is infinite or NaN. That has met the first piece of the weight; a later one may be 0, and with
// infinity give a NaN that is not due.
__device__ __forceinline__ unsigned finite(unsigned pair) {
    const unsigned first = (pair & 0x7f80u) == 0x7f80u ? 0 : 0xffffu;
    const unsigned second = (pair & 0x7f800000u) == 0x7f800000u ? 0 : 0xffff0000u;
    return pair & (first | second);
}

// Tensor cores cut what they add to a few bits below the largest term's last. So each chunk begins at zero, and has one
// sum for the leading pieces of both factors and one for all others, which the leading ones would leave no room for.
//
// Whether both factors are one piece, so that nothing is small. X_PIECES: of x, or the most that it may have.
template <class Storage, int X_PIECES>
constexpr bool is_plain = Storage::PIECES * X_PIECES == 1;

// One tile's product of a word of the matrix's columns with a piece of x.
template <int PIECE>
__device__ __forceinline__ void add_product(
    float (&leading)[4], float (&small)[4], const unsigned (&low)[4], const unsigned (&high)[4], uint4 x, int other) {
    if (PIECE > 0 && other == 0) x = {finite(x.x), finite(x.y), finite(x.z), finite(x.w)};
    if (PIECE + other == 0) {
        multiply_add(leading, low, x.x, x.y);
        multiply_add(leading, high, x.z, x.w);
    } else {
        multiply_add(small, low, x.x, x.y);
        multiply_add(small, high, x.z, x.w);
    }
}

// leading, small += one word of the columns of a chunk, times TILES · 8 rows of x, which begin at columns[tile] + place.
// For few rows all pieces of x are on their way before the first is needed. For many there are no registers for that, nor
// for a copy of this code that knows how many pieces there are.
template <class Storage, int TILES, int X_PIECES, int PIECE>
__device__ __forceinline__ void add_word(
    float (&leading)[TILES][4], float (&small)[TILES][4], const Product& product,
    const unsigned short* const (&columns)[TILES], int place, int word, const Storage& above, const Storage& below,
    const PairScale& scale_above, const PairScale& scale_below) {
    constexpr int PIECES = X_PIECES < 4 - PIECE ? X_PIECES : 4 - PIECE;  // the last of both is below a float's precision
    unsigned up[4], down[4];
    above.pairs(scale_above, word, PIECE, up);
    below.pairs(scale_below, word, PIECE, down);
    const unsigned low[4] = {up[0], down[0], up[1], down[1]}, high[4] = {up[2], down[2], up[3], down[3]};
    if constexpr (TILES == 1) {
        uint4 x[PIECES];
#pragma unroll
        for (int i = 0; i < PIECES; ++i) x[i] = load16(columns[0] + i * product.piece_size + place);
#pragma unroll
        for (int i = 0; i < PIECES; ++i) add_product<PIECE>(leading[0], small[0], low, high, x[i], i);
    } else {
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            if (tile * TILE >= product.count) break;
#pragma unroll 1
            for (int other = 0; other < min(product.pieces, PIECES); ++other) {
                const uint4 x = load16(columns[tile] + other * product.piece_size + place);
                add_product<PIECE>(leading[tile], small[tile], low, high, x, other);
            }
        }
    }
    if constexpr (PIECE + 1 < Storage::PIECES)
        add_word<Storage, TILES, X_PIECES, PIECE + 1>(
            leading, small, product, columns, place, word, above, below, scale_above, scale_below);
}

// sums += rows `above` and `below` of the matrix, in some chunks, times TILES · 8 rows of x. columns: of each tile this
// lane's row. The next AHEAD chunks of the matrix are on their way: many where few tokens leave registers for them.
template <class Storage, int TILES, int X_PIECES>
__device__ __forceinline__ void add_chunks(
    float (&sums)[TILES][4], const Product& product, const unsigned short* const (&columns)[TILES], int above, int below,
    int first, int behind) {
    constexpr int AHEAD = TILES == 1 ? 3 : 1;
    constexpr bool IS_AHEAD = TILES == 1 || sizeof(Storage) < 64;  // of bfloat16 for many, registers have no room for two
    Storage next_above[AHEAD], next_below[AHEAD];
    const auto load = [&](int i, int chunk) {
        if (chunk >= behind) return;
        next_above[i].load(product.items, product.scales, above, product.chunks, chunk);
        next_below[i].load(product.items, product.scales, below, product.chunks, chunk);
    };
    if (IS_AHEAD) {
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) load(i, first + i);
    }
    for (int chunks = first; chunks < behind; chunks += AHEAD)
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) {
            const int chunk = chunks + i;
            if (chunk >= behind) break;
            if (!IS_AHEAD) load(i, chunk);
            const Storage here_above = next_above[i], here_below = next_below[i];
            if (IS_AHEAD) load(i, chunk + AHEAD);
            const PairScale scale_above = here_above.scale(), scale_below = here_below.scale();
            float leading[TILES][4] = {}, small[TILES][4] = {};
#pragma unroll
            for (int word = 0; word < 4; ++word)
                add_word<Storage, TILES, X_PIECES, 0>(
                    leading, small, product, columns, chunk * CHUNK + word * 32, word, here_above, here_below, scale_above,
                    scale_below);
#pragma unroll
            for (int own = 0; own < TILES * 4; ++own) {
                const float sum = leading[own / 4][own % 4];
                sums[own / 4][own % 4] += is_plain<Storage, X_PIECES> ? sum : sum + small[own / 4][own % 4];
            }
        }
}

// One block: some rows of a matrix from first_row on, those before `behind`, times up to TILES · 8 rows of x. Of number i
// `x` is given by given.row(i); number i times row r goes to out[given.place(i) + r], times units[given.row(i)].
template <class Storage, int TILES, class Given>
__device__ __forceinline__ void multiply_rows(
    const Product& product, const Given& given, const float* units, int first_row, int behind, float* out) {
    constexpr bool IS_SMALL = TILES == 1;
    constexpr int ROWS = IS_SMALL ? WARP_ROWS : WARPS * WARP_ROWS, MOST = TILES * TILE;
    __shared__ float results[IS_SMALL ? PARTS : 1][MOST][ROWS];
    const int warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, quarter = threadIdx.x % 4;
    const int count = product.count, chunks = product.chunks;

    // A row beyond the last, of either, is computed as the last, and not written.
    const int row = first_row + (IS_SMALL ? 0 : warp * WARP_ROWS) + group;
    const int above = min(row, behind - 1), below = min(row + 8, behind - 1);
    const unsigned short* columns[TILES];
#pragma unroll
    for (int i = 0; i < TILES; ++i)
        columns[i] = product.x + given.row(min(i * TILE + group, count - 1)) * chunks * CHUNK + quarter * 8;

    float totals[TILES][4];
    for (int part = IS_SMALL ? warp : 0; part < (IS_SMALL ? warp + 1 : PARTS); ++part) {
        float sums[TILES][4] = {};
        const int begin = part * chunks / PARTS, end = (part + 1) * chunks / PARTS;
        if (IS_SMALL && product.pieces == 1) add_chunks<Storage, TILES, 1>(sums, product, columns, above, below, begin, end);
        else add_chunks<Storage, TILES, 3>(sums, product, columns, above, below, begin, end);
#pragma unroll
        for (int i = 0; i < TILES * 4; ++i) {
            const float sum = sums[i / 4][i % 4];
            totals[i / 4][i % 4] = IS_SMALL || part == 0 ? sum : totals[i / 4][i % 4] + sum;
        }
    }
#pragma unroll
    for (int i = 0; i < TILES * 4; ++i) {
        const int number = i / 4 * TILE + 2 * quarter + i % 2, here = group + i % 4 / 2 * 8;
        results[IS_SMALL ? warp : 0][number][IS_SMALL ? here : warp * WARP_ROWS + here] = totals[i / 4][i % 4];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * ROWS; i += blockDim.x) {
        const int number = i / ROWS, here = first_row + i % ROWS;
        float sum = results[0][number][i % ROWS];
        for (int part = 1; part < PARTS && IS_SMALL; ++part) sum += results[part][number][i % ROWS];
        if (here < behind) out[given.place(number) + here] = sum * units[given.row(number)];
    }
}

// How many rows of the matrix a block takes.
template <int TILES>
constexpr int block_rows = TILES == 1 ? WARP_ROWS : WARPS * WARP_ROWS;

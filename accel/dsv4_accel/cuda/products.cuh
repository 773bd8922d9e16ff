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
// sums += rows `above` and `below` of the matrix, in some chunks, times TILES · 8 rows of x. columns: of each tile this
// lane's row.
template <class Storage, int TILES>
__device__ __forceinline__ void add_chunks(
    float (&sums)[TILES][4], const Product& product, const unsigned short* const (&columns)[TILES], int above, int below,
    int first, int behind) {
    constexpr bool IS_AHEAD = TILES == 1 || sizeof(Storage) < 64;  // registers have no room for more
    if (first >= behind) return;
    Storage next_above, next_below;
    next_above.load(product.items, product.scales, above, product.chunks, first);
    next_below.load(product.items, product.scales, below, product.chunks, first);
    for (int chunk = first; chunk < behind; ++chunk) {
        if (!IS_AHEAD && chunk > first) {
            next_above.load(product.items, product.scales, above, product.chunks, chunk);
            next_below.load(product.items, product.scales, below, product.chunks, chunk);
        }
        const Storage here_above = next_above, here_below = next_below;
        if (IS_AHEAD && chunk + 1 < behind) {
            next_above.load(product.items, product.scales, above, product.chunks, chunk + 1);
            next_below.load(product.items, product.scales, below, product.chunks, chunk + 1);
        }
        const PairScale scale_above = here_above.scale(), scale_below = here_below.scale();
        float leading[TILES][4] = {}, small[TILES][4] = {};
#pragma unroll
        for (int word = 0; word < 4; ++word)
#pragma unroll
            for (int piece = 0; piece < Storage::PIECES; ++piece) {
                unsigned up[4], down[4];
                here_above.pairs(scale_above, word, piece, up);
                here_below.pairs(scale_below, word, piece, down);
                const unsigned low[4] = {up[0], down[0], up[1], down[1]}, high[4] = {up[2], down[2], up[3], down[3]};
                const int pieces = min(product.pieces, 4 - piece);  // the last of both is below a float's precision
#pragma unroll
                for (int tile = 0; tile < TILES; ++tile) {
                    if (tile * TILE >= product.count) break;
#pragma unroll 1
                    for (int other = 0; other < pieces; ++other) {
                        const unsigned short* place = columns[tile] + other * product.piece_size;
                        uint4 x = load16(place + chunk * CHUNK + word * 32);
                        if (piece > 0 && other == 0) x = {finite(x.x), finite(x.y), finite(x.z), finite(x.w)};
                        if (piece + other == 0) {
                            multiply_add(leading[tile], low, x.x, x.y);
                            multiply_add(leading[tile], high, x.z, x.w);
                        } else {
                            multiply_add(small[tile], low, x.x, x.y);
                            multiply_add(small[tile], high, x.z, x.w);
                        }
                    }
                }
            }
#pragma unroll
        for (int i = 0; i < TILES * 4; ++i) sums[i / 4][i % 4] += leading[i / 4][i % 4] + small[i / 4][i % 4];
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
        add_chunks<Storage>(sums, product, columns, above, below, part * chunks / PARTS, (part + 1) * chunks / PARTS);
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

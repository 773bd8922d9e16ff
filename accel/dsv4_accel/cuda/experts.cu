// The products of all visits to experts with a matrix of their expert, in one launch.
//
// A block takes one tile of visits to one expert (grouping.cu) and some rows of the expert's matrix. The sum over the
// columns is formed in four parts, one after the other in each, and the parts are added in their order. Where visits
// are few, each of a block's four warps forms one part for the same 16 rows, so that many blocks read a matrix; where
// they are many, each warp forms all parts for 16 rows of its own and 64 visits. Both add in the same order, so a
// visit's result has the same bits in either.
#include "weights.cuh"

constexpr int PARTS = 4, WARPS = 4, WARP_ROWS = 16, TILE = 8;

// What a block multiplies.
struct Product {
    const unsigned char *items, *scales;  // of the matrix, each row `chunks` whole chunks
    const unsigned short* x;  // [pieces, x_rows, 128 * chunks], see activations.cuh
    long long piece_size;
    int chunks, pieces, count;  // count: how many visits
};

// A pair with 0 for what is infinite or NaN. That has met the first piece of the weight; a later one may be 0, and with
// infinity give a NaN that is not due.
__device__ __forceinline__ unsigned finite(unsigned pair) {
    const unsigned first = (pair & 0x7f80u) == 0x7f80u ? 0 : 0xffffu;
    const unsigned second = (pair & 0x7f800000u) == 0x7f800000u ? 0 : 0xffff0000u;
    return pair & (first | second);
}

// sums += rows `above` and `below` of the matrix, in some chunks, times TILES · 8 visits. columns: of each tile this
// lane's visit.
template <class Storage, int TILES>
__device__ __forceinline__ void add_chunks(
    float (&sums)[TILES][4], const Product& product, const unsigned short* const (&columns)[TILES], int above,
    int below, int first, int behind) {
    if (first >= behind) return;
    Storage next_above, next_below;
    next_above.load(product.items, product.scales, above, product.chunks, first);
    next_below.load(product.items, product.scales, below, product.chunks, first);
    for (int chunk = first; chunk < behind; ++chunk) {
        const Storage here_above = next_above, here_below = next_below;
        if (chunk + 1 < behind) {
            next_above.load(product.items, product.scales, above, product.chunks, chunk + 1);
            next_below.load(product.items, product.scales, below, product.chunks, chunk + 1);
        }
        const PairScale scale_above = here_above.scale(), scale_below = here_below.scale();
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
                        multiply_add(sums[tile], low, x.x, x.y);
                        multiply_add(sums[tile], high, x.z, x.w);
                    }
                }
            }
    }
}

// places [experts, 3, 2]: addresses of items and scales of w1, w3 and w2; `matrix`, and with blockIdx.z the next, is
// the one to take. x [pieces, slots / visits, 128 * chunks] and units [slots / visits]: a row serves `visits` slots.
// order, tiles: see grouping.cu. out [gridDim.z, slots, rows].
template <class Storage, int TILES>
__device__ __forceinline__ void multiply_visits(
    const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
    const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    constexpr bool IS_SMALL = TILES == 1;
    constexpr int ROWS = IS_SMALL ? WARP_ROWS : WARPS * WARP_ROWS, VISITS = TILES * TILE;
    __shared__ float results[IS_SMALL ? PARTS : 1][VISITS][ROWS];
    const int* tile = tiles + 3 * blockIdx.x;
    const int count = tile[2], warp = threadIdx.x / WARP, group = threadIdx.x % WARP / 4, quarter = threadIdx.x % 4;
    if (count == 0) return;
    const int* slots_here = order + tile[1];
    const unsigned long long* place = places + (tile[0] * 3ll + matrix + blockIdx.z) * 2;
    const long long row_size = (long long)chunks * CHUNK;
    const Product product = {
        reinterpret_cast<const unsigned char*>(place[0]), reinterpret_cast<const unsigned char*>(place[1]), x,
        slots / visits * row_size, chunks, pieces, count};

    // A row or a visit beyond the last is computed as the last, and not written.
    const int row = blockIdx.y * ROWS + (IS_SMALL ? 0 : warp * WARP_ROWS) + group;
    const int above = min(row, rows - 1), below = min(row + 8, rows - 1);
    const unsigned short* columns[TILES];
#pragma unroll
    for (int i = 0; i < TILES; ++i)
        columns[i] = x + slots_here[min(i * TILE + group, count - 1)] / visits * row_size + quarter * 8;

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
        const int visit = i / 4 * TILE + 2 * quarter + i % 2, here = group + i % 4 / 2 * 8;
        results[IS_SMALL ? warp : 0][visit][IS_SMALL ? here : warp * WARP_ROWS + here] = totals[i / 4][i % 4];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * ROWS; i += blockDim.x) {
        const int visit = i / ROWS, slot = slots_here[visit], here = blockIdx.y * ROWS + i % ROWS;
        float sum = results[0][visit][i % ROWS];
        for (int part = 1; part < PARTS && IS_SMALL; ++part) sum += results[part][visit][i % ROWS];
        if (here < rows) out[((long long)blockIdx.z * slots + slot) * rows + here] = sum * units[slot / visits];
    }
}

// No model stores experts as floats, so these have no kernel for many.
extern "C" __global__ void __launch_bounds__(128)
    multiply_few_fp4(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredFp4, 1>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128)
    multiply_few_fp8(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredFp8, 1>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128)
    multiply_few_bfloat(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredBfloat, 1>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128)
    multiply_few_float(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredFloat, 1>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128)
    multiply_many_fp4(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredFp4, 8>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128)
    multiply_many_fp8(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredFp8, 8>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128)
    multiply_many_bfloat(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredBfloat, 8>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}

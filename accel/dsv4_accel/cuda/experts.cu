// The products of all visits to experts with a matrix of their expert, in one launch. A block takes one tile of visits to
// one expert (grouping.cu) and some rows of the expert's matrix.
#include "products.cuh"
#include "rounded_chunks.cuh"
#include "swiglu.cuh"

// The visits of a tile. A row of x serves `visits` slots.
struct Visits {
    const int* slots;
    int visits;
    long long first;  // the place in out of slot 0
    int rows;
    __device__ __forceinline__ long long row(int number) const { return slots[number] / visits; }
    __device__ __forceinline__ long long place(int number) const {
        return first + static_cast<long long>(slots[number]) * rows;
    }
};

// places [experts, 3, 2]: addresses of items and scales of w1, w3 and w2; `matrix`, and with blockIdx.z the next, is
// the one to take. x [pieces, slots / visits, 128 * chunks] and units [slots / visits]: a row serves `visits` slots.
// order, tiles: see grouping.cu. out [gridDim.z, slots, rows].
template <class Storage, int TILES>
__device__ __forceinline__ void multiply_visits(
    const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
    const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    const int* tile = tiles + 3 * blockIdx.x;
    if (tile[2] == 0) return;
    const unsigned long long* place = places + (tile[0] * 3ll + matrix + blockIdx.z) * 2;
    const Product product = {
        reinterpret_cast<const unsigned char*>(place[0]), reinterpret_cast<const unsigned char*>(place[1]), x,
        static_cast<long long>(slots / visits) * chunks * CHUNK, chunks, pieces, tile[2]};
    const Visits given = {order + tile[1], visits, static_cast<long long>(blockIdx.z) * slots * rows, rows};
    multiply_rows<Storage, TILES>(product, given, units, blockIdx.y * block_rows<TILES>, rows, out);
}

// For few visits. Where the hidden numbers are to be rounded, whichever block is done last with 128 of both matrices' rows
// makes them: weights [slots], or null for 1 each.
template <class Storage>
__device__ __forceinline__ void multiply_few_visits(
    const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
    const int* tiles, float* out, const float* weights, const Rounded& hidden, int slots, int visits, int rows, int chunks,
    int pieces, float limit) {
    multiply_visits<Storage, 1>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
    const int *tile = tiles + 3 * blockIdx.x, *own = order + tile[1];
    const int chunk = blockIdx.y * block_rows<1> / CHUNK;
    const float* ups = out + static_cast<long long>(slots) * rows;
    hidden.finish(
        blockIdx.x, rows, chunk, 2 * blocks_of_chunk(rows, chunk, block_rows<1>), tile[2],
        [=](int number) { return static_cast<long long>(own[number]); },
        [=](long long slot, int i) {
            const float weight = weights ? weights[slot] : 1;
            return weighted_swiglu(fresh(out + slot * rows + i), fresh(ups + slot * rows + i), weight, limit);
        });
}

// The last product of few tokens' visits, `visits` of each, and what these add up to, in their order, by whichever block is
// done last with some rows: total [tokens, rows], on top of `added` of the same shape, if that is not null. parts [slots,
// rows]; arrived: counters of 0, one for each run of rows.
template <class Storage>
__device__ __forceinline__ void add_few_visits(
    const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
    const int* tiles, float* parts, const float* added, float* total, unsigned* arrived, int slots, int visits, int rows,
    int chunks, int pieces) {
    multiply_visits<Storage, 1>(places, matrix, x, units, order, tiles, parts, slots, 1, rows, chunks, pieces);
    if (!is_last_block(arrived + blockIdx.y, gridDim.x)) return;
    const int first_row = blockIdx.y * block_rows<1>, height = min(block_rows<1>, rows - first_row);
    for (int i = threadIdx.x; i < slots / visits * height; i += blockDim.x) {
        const long long token = i / height, row = first_row + i % height;
        const float* own = parts + token * visits * rows + row;
        float sum = fresh(own);
        for (int visit = 1; visit < visits; ++visit) sum += fresh(own + static_cast<long long>(visit) * rows);
        total[token * rows + row] = added ? added[token * rows + row] + sum : sum;
    }
}

// No model stores experts as floats, so these have no kernel for many.
// Two blocks for each multiprocessor at least: so bounded, no kernel needs local memory.
extern "C" __global__ void __launch_bounds__(128, 2)
    multiply_few_fp4(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, const float* weights, unsigned short* hidden, float* hidden_units, unsigned* arrived,
        int slots, int visits, int rows, int chunks, int pieces, float limit) {
    const Rounded then = {hidden, hidden_units, arrived};
    multiply_few_visits<StoredFp4>(
        places, matrix, x, units, order, tiles, out, weights, then, slots, visits, rows, chunks, pieces, limit);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    multiply_few_fp8(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, const float* weights, unsigned short* hidden, float* hidden_units, unsigned* arrived,
        int slots, int visits, int rows, int chunks, int pieces, float limit) {
    const Rounded then = {hidden, hidden_units, arrived};
    multiply_few_visits<StoredFp8>(
        places, matrix, x, units, order, tiles, out, weights, then, slots, visits, rows, chunks, pieces, limit);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    multiply_few_bfloat(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, const float* weights, unsigned short* hidden, float* hidden_units, unsigned* arrived,
        int slots, int visits, int rows, int chunks, int pieces, float limit) {
    const Rounded then = {hidden, hidden_units, arrived};
    multiply_few_visits<StoredBfloat>(
        places, matrix, x, units, order, tiles, out, weights, then, slots, visits, rows, chunks, pieces, limit);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    multiply_few_float(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, const float* weights, unsigned short* hidden, float* hidden_units, unsigned* arrived,
        int slots, int visits, int rows, int chunks, int pieces, float limit) {
    const Rounded then = {hidden, hidden_units, arrived};
    multiply_few_visits<StoredFloat>(
        places, matrix, x, units, order, tiles, out, weights, then, slots, visits, rows, chunks, pieces, limit);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    add_few_fp4(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* parts, const float* added, float* total, unsigned* arrived, int slots, int visits, int rows,
        int chunks, int pieces) {
    add_few_visits<StoredFp4>(
        places, matrix, x, units, order, tiles, parts, added, total, arrived, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    add_few_fp8(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* parts, const float* added, float* total, unsigned* arrived, int slots, int visits, int rows,
        int chunks, int pieces) {
    add_few_visits<StoredFp8>(
        places, matrix, x, units, order, tiles, parts, added, total, arrived, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    add_few_bfloat(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* parts, const float* added, float* total, unsigned* arrived, int slots, int visits, int rows,
        int chunks, int pieces) {
    add_few_visits<StoredBfloat>(
        places, matrix, x, units, order, tiles, parts, added, total, arrived, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    add_few_float(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* parts, const float* added, float* total, unsigned* arrived, int slots, int visits, int rows,
        int chunks, int pieces) {
    add_few_visits<StoredFloat>(
        places, matrix, x, units, order, tiles, parts, added, total, arrived, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    multiply_many_fp4(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredFp4, 8>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    multiply_many_fp8(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredFp8, 8>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    multiply_many_bfloat(
        const unsigned long long* places, int matrix, const unsigned short* x, const float* units, const int* order,
        const int* tiles, float* out, int slots, int visits, int rows, int chunks, int pieces) {
    multiply_visits<StoredBfloat, 8>(places, matrix, x, units, order, tiles, out, slots, visits, rows, chunks, pieces);
}

// Matrix products on the packed bytes: mirrors dsv4/ops/linear.py. A block takes some rows of x and some of the matrix.
#include "products.cuh"
#include "rounded_chunks.cuh"
#include "status.cuh"

// Tokens of one group of channels.
struct Tokens {
    long long first;
    int groups, group, rows;
    __device__ __forceinline__ long long row(int number) const { return (first + number) * groups + group; }
    __device__ __forceinline__ long long place(int number) const { return (first + number) * rows; }
};

// items, scales: a matrix [rows, 128 · chunks], of which each group has as many rows; x [pieces, tokens · groups, 128 ·
// chunks] and units [tokens · groups], see activations.cuh; out [tokens, rows].
template <class Storage, int TILES>
__device__ __forceinline__ void multiply(
    const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
    int tokens, int rows, int groups, int chunks, int pieces) {
    const int first = blockIdx.x * TILES * TILE, own = rows / groups, group = blockIdx.z;
    const Product product = {
        items, scales, x, static_cast<long long>(tokens) * groups * chunks * CHUNK, chunks, pieces,
        min(TILES * TILE, tokens - first)};
    const Tokens given = {first, groups, group, rows};
    const int first_row = group * own + blockIdx.y * block_rows<TILES>;
    multiply_rows<Storage, TILES>(product, given, units, first_row, (group + 1) * own, out);
}

// For few tokens, the result is rounded for the product behind it, too, where that is wanted: groups are whole blocks then.
template <class Storage>
__device__ __forceinline__ void multiply_few(
    const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
    int tokens, int rows, int groups, int chunks, int pieces, const Rounded& rounded) {
    multiply<Storage, 1>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
    const int first = blockIdx.x * TILE, first_row = blockIdx.z * (rows / groups) + blockIdx.y * block_rows<1>;
    const int chunk = first_row / CHUNK;
    rounded.finish(
        blockIdx.x, rows, chunk, blocks_of_chunk(rows, chunk, block_rows<1>), min(TILE, tokens - first),
        [=](int number) { return static_cast<long long>(first + number); },
        [=](long long row, int i) { return fresh(out + row * rows + i); });
}

// Several matrices of one width, one below the other: places [matrices, 5] has of each the addresses of items and scales,
// how many rows it has, how many blocks are before its own, and how many rows are before its own in out. out: of each
// matrix [tokens, rows], one after the other.
template <class Storage>
__device__ __forceinline__ void multiply_beside(
    const unsigned long long* places, const unsigned short* x, const float* units, float* out, int tokens, int matrices,
    int chunks, int pieces) {
    const unsigned long long* place = places;
    for (int i = 1; i < matrices && blockIdx.y >= places[5 * i + 3]; ++i) place += 5;
    const int first = blockIdx.x * TILE, rows = static_cast<int>(place[2]);
    const Product product = {
        reinterpret_cast<const unsigned char*>(place[0]), reinterpret_cast<const unsigned char*>(place[1]), x,
        static_cast<long long>(tokens) * chunks * CHUNK, chunks, pieces, min(TILE, tokens - first)};
    const Tokens given = {first, 1, 0, rows};
    const int first_row = (blockIdx.y - static_cast<int>(place[3])) * block_rows<1>;
    multiply_rows<Storage, 1>(product, given, units, first_row, rows, out + tokens * place[4]);
}

// Two blocks for each multiprocessor at least: so bounded, no kernel needs local memory.
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_fp4(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        unsigned short* rounded, float* rounded_units, unsigned* arrived, int tokens, int rows, int groups, int chunks,
        int pieces) {
    const Rounded then = {rounded, rounded_units, arrived};
    multiply_few<StoredFp4>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces, then);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_fp8(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        unsigned short* rounded, float* rounded_units, unsigned* arrived, int tokens, int rows, int groups, int chunks,
        int pieces) {
    const Rounded then = {rounded, rounded_units, arrived};
    multiply_few<StoredFp8>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces, then);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_bfloat(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        unsigned short* rounded, float* rounded_units, unsigned* arrived, int tokens, int rows, int groups, int chunks,
        int pieces) {
    const Rounded then = {rounded, rounded_units, arrived};
    multiply_few<StoredBfloat>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces, then);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_float(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        unsigned short* rounded, float* rounded_units, unsigned* arrived, int tokens, int rows, int groups, int chunks,
        int pieces) {
    const Rounded then = {rounded, rounded_units, arrived};
    multiply_few<StoredFloat>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces, then);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linears_few_fp4(
        const unsigned long long* places, const unsigned short* x, const float* units, float* out, int tokens, int matrices,
        int chunks, int pieces) {
    multiply_beside<StoredFp4>(places, x, units, out, tokens, matrices, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linears_few_fp8(
        const unsigned long long* places, const unsigned short* x, const float* units, float* out, int tokens, int matrices,
        int chunks, int pieces) {
    multiply_beside<StoredFp8>(places, x, units, out, tokens, matrices, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linears_few_bfloat(
        const unsigned long long* places, const unsigned short* x, const float* units, float* out, int tokens, int matrices,
        int chunks, int pieces) {
    multiply_beside<StoredBfloat>(places, x, units, out, tokens, matrices, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linears_few_float(
        const unsigned long long* places, const unsigned short* x, const float* units, float* out, int tokens, int matrices,
        int chunks, int pieces) {
    multiply_beside<StoredFloat>(places, x, units, out, tokens, matrices, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_many_fp4(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        int tokens, int rows, int groups, int chunks, int pieces) {
    multiply<StoredFp4, 8>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_many_fp8(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        int tokens, int rows, int groups, int chunks, int pieces) {
    multiply<StoredFp8, 8>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_many_bfloat(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        int tokens, int rows, int groups, int chunks, int pieces) {
    multiply<StoredBfloat, 8>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
}

// A row of a table for each id; ids [gridDim.x], table [vocabulary, width] in float or the bits of bfloat16, the other
// null; out [gridDim.x, width], zeros for an id that names no row.
extern "C" __global__ void __launch_bounds__(256)
    embedding(const long long* ids, const float* floats, const unsigned short* bits, float* out, long long vocabulary,
              int width, unsigned long long* status) {
    const long long id = ids[blockIdx.x], target = static_cast<long long>(blockIdx.x) * width;
    const bool exists = is_within(id, vocabulary, NO_SUCH_TOKEN, status);
    for (int i = threadIdx.x; i < width; i += blockDim.x)
        out[target + i] = !exists ? 0 : floats ? floats[id * width + i] : bfloat_as_float(bits[id * width + i]);
}

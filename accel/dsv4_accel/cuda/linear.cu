// Matrix products on the packed bytes: mirrors dsv4/ops/linear.py. A block takes some rows of x and some of the matrix.
#include "products.cuh"
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

// Two blocks for each multiprocessor at least: so bounded, no kernel needs local memory.
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_fp4(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        int tokens, int rows, int groups, int chunks, int pieces) {
    multiply<StoredFp4, 1>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_fp8(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        int tokens, int rows, int groups, int chunks, int pieces) {
    multiply<StoredFp8, 1>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_bfloat(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        int tokens, int rows, int groups, int chunks, int pieces) {
    multiply<StoredBfloat, 1>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
}
extern "C" __global__ void __launch_bounds__(128, 2)
    linear_few_float(
        const unsigned char* items, const unsigned char* scales, const unsigned short* x, const float* units, float* out,
        int tokens, int rows, int groups, int chunks, int pieces) {
    multiply<StoredFloat, 1>(items, scales, x, units, out, tokens, rows, groups, chunks, pieces);
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

// The Walsh–Hadamard rotation: mirrors dsv4/ops/hadamard.py. log2(width) rounds of sums and differences of numbers whose
// places differ in one bit.
#include "hadamard.cuh"
#include "shared.cuh"

// One round among four neighbouring numbers, whose places differ in the lowest bit, then in the next.
__device__ __forceinline__ float4 rotated_by_four(float4 x) {
    const float4 pairs = make_float4(x.x + x.y, x.x - x.y, x.z + x.w, x.z - x.w);
    return make_float4(pairs.x + pairs.z, pairs.y + pairs.w, pairs.x - pairs.z, pairs.y - pairs.w);
}

// A lane's number after a round with the lane `distance` away: their sum in the lower one, the difference in the upper.
__device__ __forceinline__ float rotated_with(float own, int distance, bool is_upper) {
    const float other = __shfl_xor_sync(ALL_LANES, own, distance);
    return is_upper ? other - own : own + other;
}

// x, out [rows, 128], the indexer's width: a warp takes a row, each lane four numbers. rounded: null, or as out, for the same
// rounded to FP4 in blocks of 32.
extern "C" __global__ void __launch_bounds__(256)
    hadamard_of_128(const float* x, float* out, float* rounded, long long rows, float factor) {
    const long long place = 4 * (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x);
    if (place >= rows * 128) return;  // the whole warp
    float4 own = rotated_by_four(vector_at(x + place));
#pragma unroll
    for (int distance = 1; distance < WARP; distance *= 2) {
        const bool is_upper = threadIdx.x & distance;
        own = make_float4(rotated_with(own.x, distance, is_upper), rotated_with(own.y, distance, is_upper),
                          rotated_with(own.z, distance, is_upper), rotated_with(own.w, distance, is_upper));
    }
    own = make_float4(own.x * factor, own.y * factor, own.z * factor, own.w * factor);
    put(out + place, own);
    if (rounded) put(rounded + place, rounded_in_block<Fp4>(own, true, FP4_LANES));
}

// x, out [rows, width], width a power of two; a block takes rows_per_block rows. Shared memory: those rows.
// rounded: null, or as above, for a width of whole blocks of 32.
extern "C" __global__ void __launch_bounds__(256)
    hadamard(const float* x, float* out, float* rounded, long long rows, int width, int rows_per_block, float factor) {
    float* numbers = dynamic_shared<float>();
    const long long first = static_cast<long long>(blockIdx.x) * rows_per_block;
    const int rows_here = static_cast<int>(min(rows - first, 1ll * rows_per_block));
    const int count = rows_here * width;
    for (int i = threadIdx.x; i < count; i += blockDim.x) numbers[i] = x[first * width + i];
    rotate_rows(numbers, count, width);
    write_rows(numbers, count, factor, out + first * width);
    if (rounded) write_rounded_rows(numbers, count, factor, rounded + first * width);
}

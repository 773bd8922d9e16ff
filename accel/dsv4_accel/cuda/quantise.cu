// Rounding activations to a small format and back: mirrors dsv4/ops/quantise.py. A few lanes of a warp share a block of
// channels, which has one scale.
#include "rounding.cuh"

// Rows of `width` channels whose last `kept` ones stay as they are: the others in blocks of 4·lanes channels, of which the
// last may be shorter. All in fours, of which each thread takes one.
template <class Format>
__device__ __forceinline__ void round_content(
    const float* x, float* out, long long rows, int width, int kept, int lanes) {
    const int padded = (width + 4 * lanes - 1) / (4 * lanes) * lanes;  // threads of a row
    const long long number = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int i = static_cast<int>(number % padded) * 4;
    const bool exists = number < rows * padded && i < width, counts = exists && i < width - kept;
    const long long place = number / padded * width + i;
    const float4 own = exists ? vector_at(x + place) : make_float4(0, 0, 0, 0);
    const float4 rounded = rounded_in_block<Format>(own, counts, lanes);
    if (exists) put(out + place, counts ? rounded : own);
}

// x, out: whole blocks of 4·lanes channels, each thread takes four; `vectors` is how many fours there are.
template <class Format>
__device__ __forceinline__ void round_whole_blocks(const float* x, float* out, long long vectors, int lanes) {
    const long long place = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    const bool exists = place < vectors;
    const float4 own = exists ? vector_at(x + 4 * place) : make_float4(0, 0, 0, 0);
    const float4 result = rounded_in_block<Format>(own, exists, lanes);
    if (exists) put(out + 4 * place, result);
}

// x, out [rows, width], in blocks of any size, of which a row's last may be shorter.
template <class Format>
__device__ __forceinline__ void round_blocks(
    const float* x, float* out, long long rows, int width, int block, int lanes) {
    const int blocks_per_row = (width + block - 1) / block, lane = threadIdx.x % lanes;
    const long long number = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
    const bool exists = number < rows * blocks_per_row;
    const int first = exists ? static_cast<int>(number % blocks_per_row) * block : 0;
    const int count = exists ? min(block, width - first) : 0;
    const long long start = exists ? number / blocks_per_row * width + first : 0;

    float largest = 0;
    for (int i = lane; i < count; i += lanes) largest = fmaxf(largest, magnitude_of(x[start + i]));
    const BlockScale<Format> scale(largest_of(largest, lanes));
    for (int i = lane; i < count; i += lanes) out[start + i] = scale.rounded(x[start + i]);
}

extern "C" __global__ void __launch_bounds__(256)
    fake_quant_fp8_whole(const float* x, float* out, long long vectors, int lanes) {
    round_whole_blocks<Fp8>(x, out, vectors, lanes);
}

// x, out [rows, width]: all but the last `kept` channels are rounded; both are multiples of 4.
extern "C" __global__ void __launch_bounds__(256)
    fake_quant_fp8_content(const float* x, float* out, long long rows, int width, int kept, int lanes) {
    round_content<Fp8>(x, out, rows, width, kept, lanes);
}

extern "C" __global__ void __launch_bounds__(256)
    fake_quant_fp4_whole(const float* x, float* out, long long vectors, int lanes) {
    round_whole_blocks<Fp4>(x, out, vectors, lanes);
}

extern "C" __global__ void __launch_bounds__(256)
    fake_quant_fp8(const float* x, float* out, long long rows, int width, int block, int lanes) {
    round_blocks<Fp8>(x, out, rows, width, block, lanes);
}

extern "C" __global__ void __launch_bounds__(256)
    fake_quant_fp4(const float* x, float* out, long long rows, int width, int block, int lanes) {
    round_blocks<Fp4>(x, out, rows, width, block, lanes);
}

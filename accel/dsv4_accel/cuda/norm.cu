// RMSNorm, with a learned weight and without: mirrors dsv4/ops/norm.py. A warp takes a short row, a block a long one; the
// width alone decides, so a row has the same bits among any number of others.
#include "activations.cuh"
#include "norm.cuh"
#include "streams.cuh"

// x, out [rows, width]; weight [width] in one of two types, or null for none. A multiple of 4 of at most 1024 channels.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm_short(const float* x, const float* weight, const unsigned short* bfloats, float* out, long long rows, int width,
                   float eps) {
    const long long row = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (row >= rows) return;  // the whole warp
    const auto sum = [](float value) { return warp_sum(value); };
    normalise(x + row * width, {weight, bfloats}, out + row * width, width, eps, threadIdx.x % WARP, WARP, sum);
}

// The same for a multiple of 4 of at most 8192 channels, one block per row.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm_long(const float* x, const float* weight, const unsigned short* bfloats, float* out, int width, float eps) {
    const long long start = static_cast<long long>(blockIdx.x) * width;
    const auto sum = [](float value) { return block_sum(value); };
    normalise(x + start, {weight, bfloats}, out + start, width, eps, threadIdx.x, blockDim.x, sum);
}

// What products make of the few rows that a launch normalises, rounded and as they are (activations.cuh): so it needs no
// launch.
struct Prepared {
    unsigned short* rounded;
    float* rounded_units;
    unsigned short* pieces;
    float* units;

    // The row of this block, which its threads have written.
    __device__ __forceinline__ void write(const float* row, int width) const {
        __syncthreads();  // others read what this thread has written
        const auto number = [=](int i) { return row[i]; };
        write_pieces(width, true, number, rounded, rounded_units, blockIdx.x, gridDim.x);
        write_pieces(width, false, number, pieces, units, blockIdx.x, gridDim.x);
    }
};

// As `rms_norm_long`, with what products make of it. Blocks of a warp for at most 1024 channels, whose sum of squares a
// warp forms.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm_prepared(
        const float* x, const float* weight, const unsigned short* bfloats, float* out, unsigned short* rounded,
        float* rounded_units, unsigned short* pieces, float* units, int width, float eps) {
    const long long start = static_cast<long long>(blockIdx.x) * width;
    const auto sum = [](float squares) { return block_sum(squares); };
    normalise(x + start, {weight, bfloats}, out + start, width, eps, threadIdx.x, blockDim.x, sum);
    const Prepared prepared = {rounded, rounded_units, pieces, units};
    prepared.write(out + start, width);
}

// The same of what four streams [rows, 4, width] collapse to with the shares pre [rows, 4].
extern "C" __global__ void __launch_bounds__(256)
    collapse_norm_prepared(
        const float* streams, const float* pre, const float* weight, const unsigned short* bfloats, float* out,
        unsigned short* rounded, float* rounded_units, unsigned short* pieces, float* units, int width, float eps) {
    const long long start = static_cast<long long>(blockIdx.x) * width;
    const float4* own = reinterpret_cast<const float4*>(streams + 4 * start);
    const float* shares = pre + 4 * blockIdx.x;
    const auto sum = [](float squares) { return block_sum(squares); };
    const auto read = [=](int i) { return collapsed<4>(own + i / 4, shares, 4, width / 4); };
    normalise(read, {weight, bfloats}, width, eps, threadIdx.x, blockDim.x, sum,
              [=](int i, float4 numbers) { put(out + start + i, numbers); });
    const Prepared prepared = {rounded, rounded_units, pieces, units};
    prepared.write(out + start, width);
}

// The same for any width, one block per row.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float* x, const float* weight, const unsigned short* bfloats, float* out, int width, float eps) {
    const Weight weights{weight, bfloats};
    const long long start = static_cast<long long>(blockIdx.x) * width;
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) squares = fmaf(x[start + i], x[start + i], squares);
    const float root = sqrtf(block_sum(squares) / width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x) out[start + i] = x[start + i] / root * weights.at(i);
}

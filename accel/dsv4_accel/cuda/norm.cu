// RMSNorm, with a learned weight and without: mirrors dsv4/ops/norm.py. A warp takes a short row, a block a long one; the
// width alone decides, so a row has the same bits among any number of others.
#include "activations.cuh"
#include "vectors.cuh"
#include "warp.cuh"

constexpr int HELD = 8;  // vectors of a row that a thread keeps between the sum of squares and the division

// The weight of a channel: a float, a bfloat16 of which these are the bits, or 1 where both pointers are null.
struct Weight {
    const float* floats;
    const unsigned short* bfloats;

    __device__ __forceinline__ float at(int i) const {
        return floats ? floats[i] : bfloats ? __uint_as_float(static_cast<unsigned>(bfloats[i]) << 16) : 1.0f;
    }

    // The weights of channels i … i + 3; i is a multiple of 4.
    __device__ __forceinline__ float4 vector_at(int i) const {
        if (floats) return ::vector_at(floats + i);
        if (!bfloats) return make_float4(1, 1, 1, 1);
        const uint2 bits = *reinterpret_cast<const uint2*>(bfloats + i);
        return make_float4(__uint_as_float(bits.x << 16), __uint_as_float(bits.x & 0xffff0000u),
                           __uint_as_float(bits.y << 16), __uint_as_float(bits.y & 0xffff0000u));
    }
};

// One row of at most 4·HELD·lanes channels, a multiple of 4, by `lanes` threads; `sum` adds a value of each of them up.
template <class Sum>
__device__ __forceinline__ void normalise(
    const float* x, Weight weight, float* out, int width, float eps, int lane, int lanes, const Sum& sum) {
    float4 held[HELD];
    float squares = 0;
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        const int i = 4 * (lane + k * lanes);
        held[k] = i < width ? vector_at(x + i) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int k = 0; k < HELD; ++k) squares = dot(held[k], held[k], squares);
    const float root = sqrtf(sum(squares) / width + eps);
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        const int i = 4 * (lane + k * lanes);
        if (i >= width) continue;
        const float4 own = held[k], factor = weight.vector_at(i);
        put(out + i, make_float4(own.x / root * factor.x, own.y / root * factor.y, own.z / root * factor.z,
                                 own.w / root * factor.w));
    }
}

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

// The same for few rows, and what products will make of them, rounded and as they are (activations.cuh): so it needs no
// launch. Blocks of a warp for at most 1024 channels, whose sum of squares a warp forms.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm_prepared(
        const float* x, const float* weight, const unsigned short* bfloats, float* out, unsigned short* rounded,
        float* rounded_units, unsigned short* pieces, float* units, int width, float eps) {
    const long long start = static_cast<long long>(blockIdx.x) * width;
    const auto sum = [](float squares) { return block_sum(squares); };
    normalise(x + start, {weight, bfloats}, out + start, width, eps, threadIdx.x, blockDim.x, sum);
    __syncthreads();  // others read what this thread has written
    const auto number = [=](int i) { return out[start + i]; };
    write_pieces(width, true, number, rounded, rounded_units, blockIdx.x, gridDim.x);
    write_pieces(width, false, number, pieces, units, blockIdx.x, gridDim.x);
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

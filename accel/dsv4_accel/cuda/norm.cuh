#pragma once
// RMSNorm of one row that stays in registers between the sum of squares and the division.
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

// One row of at most 4·HELD·lanes channels, a multiple of 4, by `lanes` threads: `read(i)` gives channels i … i + 3 and
// `write(i, numbers)` takes what becomes of them; `sum` adds a value of each thread up.
template <class Read, class Sum, class Write>
__device__ __forceinline__ void normalise(
    const Read& read, Weight weight, int width, float eps, int lane, int lanes, const Sum& sum, const Write& write) {
    float4 held[HELD];
    float squares = 0;
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        const int i = 4 * (lane + k * lanes);
        held[k] = i < width ? read(i) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int k = 0; k < HELD; ++k) squares = dot(held[k], held[k], squares);
    const float root = sqrtf(sum(squares) / width + eps);
#pragma unroll
    for (int k = 0; k < HELD; ++k) {
        const int i = 4 * (lane + k * lanes);
        if (i >= width) continue;
        const float4 own = held[k], factor = weight.vector_at(i);
        write(i, make_float4(own.x / root * factor.x, own.y / root * factor.y, own.z / root * factor.z,
                             own.w / root * factor.w));
    }
}

// The same from a row in memory to another.
template <class Sum>
__device__ __forceinline__ void normalise(
    const float* x, Weight weight, float* out, int width, float eps, int lane, int lanes, const Sum& sum) {
    normalise([=](int i) { return vector_at(x + i); }, weight, width, eps, lane, lanes, sum,
              [=](int i, float4 numbers) { put(out + i, numbers); });
}

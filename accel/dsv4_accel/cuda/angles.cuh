#pragma once
// What a pair of channels is turned by, and how.
#include "warp.cuh"

// Sine and cosine of an angle. sinf keeps an array in local memory for large angles; in half turns nothing is left of an
// angle's size, once its product with 1/π is known to twice a double's precision.
__device__ __forceinline__ void sine_and_cosine(float angle, float& sine, float& cosine) {
    constexpr double INVERSE = 0x1.45f306dc9c883p-2, REST = -0x1.6b01ec5417056p-56;  // 1/π is their sum
    const double wide = angle, half_turns = wide * INVERSE, missing = fma(wide, INVERSE, -half_turns) + wide * REST;
    double exact_sine, exact_cosine;
    sincospi(half_turns - 2 * rint(0.5 * half_turns) + missing, &exact_sine, &exact_cosine);
    sine = static_cast<float>(exact_sine);
    cosine = static_cast<float>(exact_cosine);
}

// The product is rounded to a float, as in the reference.
__device__ __forceinline__ float angle_of(long long position, float frequency) {
    return __fmul_rn(static_cast<float>(position), frequency);
}

// Each product is rounded by itself, so that all kernels that turn give the same bits.
__device__ __forceinline__ float2 turned(float2 pair, float cosine, float sine) {
    return make_float2(__fsub_rn(__fmul_rn(pair.x, cosine), __fmul_rn(pair.y, sine)),
                       __fadd_rn(__fmul_rn(pair.x, sine), __fmul_rn(pair.y, cosine)));
}

// A row by a warp, channels [0, channels), of which those from `plain` on are turned: `angle(pair, sine, cosine)` says how.
template <class Angle>
__device__ __forceinline__ void turn_row(const float* x, float* out, int channels, int plain, const Angle& angle) {
    for (int i = threadIdx.x % WARP; i < plain; i += WARP) out[i] = x[i];
    for (int pair = threadIdx.x % WARP; pair < (channels - plain) / 2; pair += WARP) {
        float sine, cosine;
        angle(pair, sine, cosine);
        const int i = plain + 2 * pair;
        const float2 result = turned(make_float2(x[i], x[i + 1]), cosine, sine);
        out[i] = result.x;
        out[i + 1] = result.y;
    }
}

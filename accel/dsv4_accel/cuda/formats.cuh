#pragma once
// The small formats in float arithmetic: mirrors dsv4/ops/formats.py. Every function is exact.

constexpr float LARGEST_FLOAT = 3.40282346638528859812e38f;

__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fc00000); }
__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// The number of a bfloat16, and the nearest bfloat16 to a number, ties to even; a NaN keeps its sign alone.
__device__ __forceinline__ float bfloat_as_float(unsigned bits) { return __uint_as_float(bits << 16); }

__device__ __forceinline__ unsigned nearest_bfloat(float number) {
    const unsigned word = __float_as_uint(number);
    return number == number ? (word + 0x7fffu + (word >> 16 & 1)) >> 16 : (word >> 16 & 0x8000u) | 0x7fc0u;
}

// The larger of two numbers; a NaN where either is one, as NumPy's maximum.
__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

// The power of two 2^power, for −126 <= power <= 127.
__device__ __forceinline__ float power_of_two(int power) { return __int_as_float((power + 127) << 23); }

// A magnitude that is a normal float, rounded to `bits` bits behind the leading one, ties to even.
template <int bits>
__device__ __forceinline__ float round_mantissa(float magnitude) {
    constexpr unsigned dropped = 23 - bits, below_half = (1u << (dropped - 1)) - 1;
    const unsigned word = __float_as_uint(magnitude);
    return __uint_as_float((word + below_half + (word >> dropped & 1)) >> dropped << dropped);
}

// E4M3: three bits behind the leading one, steps of 2^−9 below 2^−6, at most 448 = 1.75 · 2^8.
struct Fp8 {
    static constexpr int bits = 8;
    static constexpr unsigned max_mantissa = 0x600000;
    static constexpr int max_power = 8;
    static constexpr float floor = 1e-4f;  // FP8_FLOOR
    // The nearest value of the format to a magnitude of at most 448.
    static __device__ __forceinline__ float nearest(float magnitude) {
        if (magnitude >= 0x1p-6f) return round_mantissa<3>(magnitude);
        return __fsub_rn(__fadd_rn(magnitude, 0x1p14f), 0x1p14f);  // floats near 2^14 are 2^−9 apart
    }
    // The code of a value of the format that is not negative.
    static __device__ __forceinline__ unsigned code(float value) {
        if (value < 0x1p-6f) return static_cast<unsigned>(value * 0x1p9f);
        return (__float_as_uint(value) >> 20) - (120u << 3);
    }
    // What a code stands for; the sign is bit 7.
    static __device__ __forceinline__ float value(unsigned code) {
        const float magnitude = (code & 0x7fu) == 0x7fu ? not_a_number() : __uint_as_float((code & 0x7fu) << 20) * 0x1p120f;
        return code & 0x80u ? -magnitude : magnitude;
    }
};

// E2M1: one bit behind the leading one, steps of 1/2 below 1, at most 6 = 1.5 · 2^2.
struct Fp4 {
    static constexpr int bits = 4;
    static constexpr unsigned max_mantissa = 0x400000;
    static constexpr int max_power = 2;
    static constexpr float floor = 6 * 0x1p-126f;  // FP4_FLOOR
    static __device__ __forceinline__ float nearest(float magnitude) {
        if (magnitude >= 1) return round_mantissa<1>(magnitude);
        return __fsub_rn(__fadd_rn(magnitude, 0x1p22f), 0x1p22f);  // floats near 2^22 are 1/2 apart
    }
    static __device__ __forceinline__ unsigned code(float value) {
        return value < 1 ? static_cast<unsigned>(value * 2) : (__float_as_uint(value) >> 22) - (126u << 1);
    }
    // The sign is bit 3.
    static __device__ __forceinline__ float value(unsigned code) {
        const float magnitude = __uint_as_float((code & 7u) << 22) * 0x1p126f;
        return code & 8u ? -magnitude : magnitude;
    }
};

// The exponent of the smallest power of two s with largest <= s · the format's maximum, once `largest` is raised to the
// format's floor. largest: a finite magnitude.
template <class Format>
__device__ __forceinline__ int scale_power(float largest) {
    const unsigned word = __float_as_uint(fmaxf(largest, Format::floor));
    const int power = static_cast<int>(word >> 23) - 127;
    return power - Format::max_power + ((word & 0x7fffffu) > Format::max_mantissa ? 1 : 0);
}

// A magnitude when the largest is looked for: infinity for a NaN, which fmaxf passes over.
__device__ __forceinline__ float magnitude_of(float number) {
    const float magnitude = fabsf(number);
    return magnitude <= LARGEST_FLOAT ? magnitude : infinity();
}

// What the numbers of a block are rounded with.
template <class Format>
struct BlockScale {
    float scale, inverse;

    // largest: of the block's `magnitude_of`s. A block that holds a NaN or an infinity becomes NaN.
    __device__ __forceinline__ explicit BlockScale(float largest) {
        const bool is_finite = largest <= LARGEST_FLOAT;
        const int power = is_finite ? scale_power<Format>(largest) : 0;
        scale = is_finite ? power_of_two(power) : not_a_number();
        inverse = power_of_two(-power);
    }

    __device__ __forceinline__ float rounded(float number) const {
        return copysignf(Format::nearest(fabsf(number) * inverse), number) * scale;
    }
};

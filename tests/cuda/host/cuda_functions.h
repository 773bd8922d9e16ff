// What CUDA C++ has without any #include, as far as the kernels use it: vectors, bits, arithmetic, barriers, shuffles.
#pragma once

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class To, class From>
inline To with_bits_of(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}
inline unsigned __float_as_uint(float x) { return with_bits_of<unsigned>(x); }
inline int __float_as_int(float x) { return with_bits_of<int>(x); }
inline float __uint_as_float(unsigned x) { return with_bits_of<float>(x); }
inline float __int_as_float(int x) { return with_bits_of<float>(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const std::uint64_t bytes = (std::uint64_t(high) << 32) | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= unsigned(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
    return result;
}

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline void sincospi(double x, double* sine, double* cosine) {
    const double angle = (x - 2 * std::rint(x / 2)) * 3.14159265358979323846;
    *sine = std::sin(angle);
    *cosine = std::cos(angle);
}
inline float fdividef(float a, float b) { return a / b; }

template <class T>
inline T max(T a, T b) { return a < b ? b : a; }
template <class T>
inline T min(T a, T b) { return b < a ? b : a; }

template <class T>
inline T __ldg(const T* place) { return *place; }
template <class T>
inline T __ldcg(const T* place) { return *place; }

inline void __syncthreads() { host::wait(host::State::at_block); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(host::State::at_warp); }
inline void __threadfence() {}

template <class T>
inline T __shfl_sync(unsigned, T value, int lane) { return host::exchange(value, unsigned(lane)); }
template <class T>
inline T __shfl_xor_sync(unsigned, T value, int mask) { return host::exchange(value, (host::current ^ unsigned(mask)) % 32); }
template <class T>
inline T __shfl_down_sync(unsigned, T value, int distance) {
    const unsigned lane = host::current % 32, from = lane + unsigned(distance);
    return host::exchange(value, from < 32 ? from : lane);
}
template <class T>
inline T __shfl_up_sync(unsigned, T value, int distance) {
    const int lane = int(host::current % 32), from = lane - distance;
    return host::exchange(value, unsigned(from >= 0 ? from : lane));
}
inline unsigned __ballot_sync(unsigned, bool vote) {
    const auto& slots = host::show(vote);
    unsigned votes = 0;
    for (int lane = 0; lane < 32; ++lane) votes |= unsigned(slots[lane][0] != 0) << lane;
    return votes;
}
inline bool __any_sync(unsigned mask, bool vote) { return __ballot_sync(mask, vote) != 0; }
inline bool __all_sync(unsigned mask, bool vote) { return __ballot_sync(mask, vote) == 0xffffffffu; }

template <class T>
inline T atomicAdd(T* place, T value) { T old = *place; *place = old + value; return old; }
template <class T>
inline T atomicMax(T* place, T value) { T old = *place; *place = max(old, value); return old; }
template <class T>
inline T atomicMin(T* place, T value) { T old = *place; *place = min(old, value); return old; }
template <class T>
inline T atomicCAS(T* place, T expected, T value) { T old = *place; if (old == expected) *place = value; return old; }

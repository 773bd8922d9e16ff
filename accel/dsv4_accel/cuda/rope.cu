// Rotary position embedding: mirrors dsv4/ops/rope.py. A block takes some heads of some tokens, so that each angle's sine
// and cosine are computed once for them; a warp takes one head of one token at a time.
#include "shared.cuh"
#include "vectors.cuh"
#include "warp.cuh"

// Sines and cosines of a block's tokens, [tokens, pairs] each, in shared memory.
struct Angles {
    float *cosines, *sines;
};

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

// The product is rounded to a float, as in the reference. frequencies [pairs]
__device__ __forceinline__ Angles angles_of(const long long* positions, int tokens, const float* frequencies, int pairs) {
    float* shared = dynamic_shared<float>();
    const Angles angles{shared, shared + tokens * pairs};
    for (int i = threadIdx.x; i < tokens * pairs; i += blockDim.x) {
        const float angle = __fmul_rn(static_cast<float>(positions[i / pairs]), frequencies[i % pairs]);
        sine_and_cosine(angle, angles.sines[i], angles.cosines[i]);
    }
    __syncthreads();
    return angles;
}

__device__ __forceinline__ float2 turned(float2 pair, float cosine, float sine) {
    return make_float2(pair.x * cosine - pair.y * sine, pair.x * sine + pair.y * cosine);
}

// What a warp does with one head of one token, channels [0, channels), of which those from `plain` on are turned.
struct ByVectors {  // plain and channels are multiples of 4, so that a vector holds two pairs or none
    static __device__ __forceinline__ void turn(
        const float* x, float* out, int channels, int plain, const float* cosines, const float* sines) {
        for (int i = 4 * (threadIdx.x % WARP); i < channels; i += 4 * WARP) {
            float4 own = vector_at(x + i);
            if (i >= plain) {
                const int pair = (i - plain) / 2;
                const float2 first = turned(make_float2(own.x, own.y), cosines[pair], sines[pair]);
                const float2 second = turned(make_float2(own.z, own.w), cosines[pair + 1], sines[pair + 1]);
                own = make_float4(first.x, first.y, second.x, second.y);
            }
            put(out + i, own);
        }
    }
};

struct ByNumbers {
    static __device__ __forceinline__ void turn(
        const float* x, float* out, int channels, int plain, const float* cosines, const float* sines) {
        for (int i = threadIdx.x % WARP; i < plain; i += WARP) out[i] = x[i];
        for (int pair = threadIdx.x % WARP; pair < (channels - plain) / 2; pair += WARP) {
            const int i = plain + 2 * pair;
            const float2 result = turned(make_float2(x[i], x[i + 1]), cosines[pair], sines[pair]);
            out[i] = result.x;
            out[i + 1] = result.y;
        }
    }
};

template <class Way>
__device__ __forceinline__ void turn_block(
    const float* x, const long long* positions, const float* frequencies, float* out, long long tokens, int heads,
    int channels, int pairs, int tokens_per_block, int heads_per_block) {
    const long long first_token = static_cast<long long>(blockIdx.x) * tokens_per_block;
    const int first_head = blockIdx.y * heads_per_block, heads_here = min(heads_per_block, heads - first_head);
    const int tokens_here = static_cast<int>(min(tokens - first_token, 1ll * tokens_per_block));
    const Angles angles = angles_of(positions + first_token, tokens_here, frequencies, pairs);
    for (int row = threadIdx.x / WARP; row < tokens_here * heads_here; row += blockDim.x / WARP) {
        const int token = row / heads_here, head = first_head + row % heads_here;
        const long long start = ((first_token + token) * heads + head) * channels;
        const float *cosines = angles.cosines + token * pairs, *sines = angles.sines + token * pairs;
        Way::turn(x + start, out + start, channels, channels - 2 * pairs, cosines, sines);
    }
}

// x, out [tokens, heads, channels]; positions [tokens]; frequencies [pairs]; the last 2·pairs channels are turned.
// Shared memory: 2·tokens_per_block·pairs floats.
extern "C" __global__ void __launch_bounds__(256)
    rope(const float* x, const long long* positions, const float* frequencies, float* out, long long tokens, int heads,
         int channels, int pairs, int tokens_per_block, int heads_per_block) {
    turn_block<ByNumbers>(x, positions, frequencies, out, tokens, heads, channels, pairs, tokens_per_block, heads_per_block);
}

// The same for channels and 2·pairs that are multiples of 4.
extern "C" __global__ void __launch_bounds__(256)
    rope_vectors(const float* x, const long long* positions, const float* frequencies, float* out, long long tokens,
                 int heads, int channels, int pairs, int tokens_per_block, int heads_per_block) {
    turn_block<ByVectors>(x, positions, frequencies, out, tokens, heads, channels, pairs, tokens_per_block, heads_per_block);
}

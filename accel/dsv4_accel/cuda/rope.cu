// Rotary position embedding: mirrors dsv4/ops/rope.py. A block takes some heads of some tokens, so that each angle's sine
// and cosine are computed once for them; a warp takes one head of one token at a time.
#include "angles.cuh"
#include "norm.cuh"
#include "rounding.cuh"
#include "shared.cuh"

// Sines and cosines of a block's tokens, [tokens, pairs] each, in shared memory.
struct Angles {
    float *cosines, *sines;
};

// frequencies [pairs]
__device__ __forceinline__ Angles angles_of(const long long* positions, int tokens, const float* frequencies, int pairs) {
    float* shared = dynamic_shared<float>();
    const Angles angles{shared, shared + tokens * pairs};
    for (int i = threadIdx.x; i < tokens * pairs; i += blockDim.x) {
        sine_and_cosine(angle_of(positions[i / pairs], frequencies[i % pairs]), angles.sines[i], angles.cosines[i]);
    }
    __syncthreads();
    return angles;
}

// Four channels, of which those from `plain` on are turned. plain is a multiple of 4, so that they are two pairs or none.
__device__ __forceinline__ float4 turned_at(int i, float4 own, int plain, const float* cosines, const float* sines) {
    if (i < plain) return own;
    const int pair = (i - plain) / 2;
    const float2 first = turned(make_float2(own.x, own.y), cosines[pair], sines[pair]);
    const float2 second = turned(make_float2(own.z, own.w), cosines[pair + 1], sines[pair + 1]);
    return make_float4(first.x, first.y, second.x, second.y);
}

// What a warp does with one head of one token, channels [0, channels), of which those from `plain` on are turned.
struct ByVectors {  // plain and channels are multiples of 4
    __device__ __forceinline__ void turn(
        const float* x, float* out, int channels, int plain, const float* cosines, const float* sines) const {
        for (int i = 4 * (threadIdx.x % WARP); i < channels; i += 4 * WARP)
            put(out + i, turned_at(i, vector_at(x + i), plain, cosines, sines));
    }
};

// The same of a head that is normalised first, of at most 1024 channels.
struct Normalised {
    static constexpr int ENTRY_LANES = 16;  // of a block of 64 channels
    Weight weight;
    float eps;
    const float* all;  // the whole output
    float* entries;    // null, or as the output, for the numbers rounded

    __device__ __forceinline__ void turn(
        const float* x, float* out, int channels, int plain, const float* cosines, const float* sines) const {
        normalise([=](int i) { return vector_at(x + i); }, weight, channels, eps, threadIdx.x % WARP, WARP,
                  [](float squares) { return warp_sum(squares); },
                  [=](int i, float4 own) { put(out + i, turned_at(i, own, plain, cosines, sines)); });
        if (!entries) return;
        float* entry = entries + (out - all);
        for (int first = 0; first < channels; first += 4 * WARP) {
            const int i = first + 4 * (threadIdx.x % WARP);  // what this lane has written
            const float4 own = i < channels ? vector_at(out + i) : make_float4(0, 0, 0, 0);
            const float4 rounded = rounded_in_block<Fp8>(own, i < plain, ENTRY_LANES);
            if (i < channels) put(entry + i, i < plain ? rounded : own);
        }
    }
};

struct ByNumbers {
    __device__ __forceinline__ void turn(
        const float* x, float* out, int channels, int plain, const float* cosines, const float* sines) const {
        turn_row(x, out, channels, plain, [=](int pair, float& sine, float& cosine) {
            sine = sines[pair];
            cosine = cosines[pair];
        });
    }
};

template <class Way>
__device__ __forceinline__ void turn_block(
    const float* x, const long long* positions, const float* frequencies, float* out, long long tokens, int heads,
    int channels, int pairs, int tokens_per_block, int heads_per_block, const Way& way) {
    const long long first_token = static_cast<long long>(blockIdx.x) * tokens_per_block;
    const int first_head = blockIdx.y * heads_per_block, heads_here = min(heads_per_block, heads - first_head);
    const int tokens_here = static_cast<int>(min(tokens - first_token, 1ll * tokens_per_block));
    const Angles angles = angles_of(positions + first_token, tokens_here, frequencies, pairs);
    for (int row = threadIdx.x / WARP; row < tokens_here * heads_here; row += blockDim.x / WARP) {
        const int token = row / heads_here, head = first_head + row % heads_here;
        const long long start = ((first_token + token) * heads + head) * channels;
        const float *cosines = angles.cosines + token * pairs, *sines = angles.sines + token * pairs;
        way.turn(x + start, out + start, channels, channels - 2 * pairs, cosines, sines);
    }
}

// x, out [tokens, heads, channels]; positions [tokens]; frequencies [pairs]; the last 2·pairs channels are turned.
// Shared memory: 2·tokens_per_block·pairs floats.
extern "C" __global__ void __launch_bounds__(256)
    rope(const float* x, const long long* positions, const float* frequencies, float* out, long long tokens, int heads,
         int channels, int pairs, int tokens_per_block, int heads_per_block) {
    turn_block(
        x, positions, frequencies, out, tokens, heads, channels, pairs, tokens_per_block, heads_per_block, ByNumbers());
}

// The same for channels and 2·pairs that are multiples of 4.
extern "C" __global__ void __launch_bounds__(256)
    rope_vectors(const float* x, const long long* positions, const float* frequencies, float* out, long long tokens,
                 int heads, int channels, int pairs, int tokens_per_block, int heads_per_block) {
    turn_block(
        x, positions, frequencies, out, tokens, heads, channels, pairs, tokens_per_block, heads_per_block, ByVectors());
}

// The same with a norm before it, of at most 1024 channels: weight and bfloats as in norm.cu. entries: null, or as out, for
// the same with the channels that are not turned rounded to FP8 in blocks of 64.
extern "C" __global__ void __launch_bounds__(256)
    norm_rope(const float* x, const long long* positions, const float* frequencies, float* out, long long tokens, int heads,
              int channels, int pairs, int tokens_per_block, int heads_per_block, const float* weight,
              const unsigned short* bfloats, float* entries, float eps) {
    const Normalised way = {{weight, bfloats}, eps, out, entries};
    turn_block(x, positions, frequencies, out, tokens, heads, channels, pairs, tokens_per_block, heads_per_block, way);
}

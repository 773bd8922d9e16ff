// What the weights of hyper-connections are for: collapsing a token's streams and mixing them (dsv4/ops/mhc.py). A thread
// takes a channel of one token, or four neighbouring ones of the four streams of the released models.
#include "streams.cuh"

constexpr int MAX_STREAMS = 8;

// streams [tokens, n, channels], pre [tokens, n] -> out [tokens, channels]
template <int MOST, class Numbers>
__device__ __forceinline__ void collapse(const Numbers* streams, const float* pre, Numbers* out, int n, int channels) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const long long token = blockIdx.x;
    out[token * channels + channel] =
        collapsed<MOST>(streams + token * n * channels + channel, pre + token * n, n, channels);
}

// streams [tokens, n, channels], output [tokens, channels], post [tokens, n], comb [tokens, n, n] -> out as streams:
// comb is used transposed.
template <int MOST, class Numbers>
__device__ __forceinline__ void mix(
    const Numbers* streams, const Numbers* output, const float* post, const float* comb, Numbers* out, int n, int channels) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const long long token = blockIdx.x, start = token * n * channels + channel;
    const Numbers added = output[token * channels + channel];
    Numbers old[MOST];
    read_streams(old, streams + start, n, channels);
    for (int i = 0; i < n; ++i) {
        Numbers total = add_scaled(Numbers{}, post[token * n + i], added);
#pragma unroll
        for (int j = 0; j < MOST; ++j)
            if (j < n) total = add_scaled(total, comb[(token * n + j) * n + i], old[j]);
        out[start + static_cast<long long>(i) * channels] = total;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    mhc_collapse(const float* streams, const float* pre, float* out, int n, int channels) {
    collapse<MAX_STREAMS>(streams, pre, out, n, channels);
}

// For n = 4; vectors: how many fours of channels there are.
extern "C" __global__ void __launch_bounds__(256)
    mhc_collapse_four(const float* streams, const float* pre, float* out, int vectors) {
    collapse<4>(reinterpret_cast<const float4*>(streams), pre, reinterpret_cast<float4*>(out), 4, vectors);
}

extern "C" __global__ void __launch_bounds__(256)
    mhc_mix(const float* streams, const float* output, const float* post, const float* comb, float* out, int n, int channels) {
    mix<MAX_STREAMS>(streams, output, post, comb, out, n, channels);
}

// For n = 4; vectors: how many fours of channels there are.
extern "C" __global__ void __launch_bounds__(256)
    mhc_mix_four(const float* streams, const float* output, const float* post, const float* comb, float* out, int vectors) {
    const auto *old = reinterpret_cast<const float4*>(streams), *added = reinterpret_cast<const float4*>(output);
    mix<4>(old, added, post, comb, reinterpret_cast<float4*>(out), 4, vectors);
}

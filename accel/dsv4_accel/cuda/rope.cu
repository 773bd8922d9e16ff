// Rotary position embedding: mirrors dsv4/ops/rope.py. A block takes some heads of one token, so that each angle's sine
// and cosine are computed once for them.
#include "shared.cuh"

// x, out [tokens, heads, channels]; positions [tokens]; frequencies [pairs], cast to float first; the last 2·pairs
// channels are rotated. Shared memory: 2·pairs floats.
extern "C" __global__ void __launch_bounds__(256)
    rope(const float* x, const long long* positions, const double* frequencies, float* out, int heads, int channels,
         int pairs, int heads_per_block) {
    float* cosines = dynamic_shared<float>();
    float* sines = cosines + pairs;
    const float position = static_cast<float>(positions[blockIdx.x]);
    for (int i = threadIdx.x; i < pairs; i += blockDim.x) {
        const float angle = __fmul_rn(position, static_cast<float>(frequencies[i]));  // rounded, as in the reference
        cosines[i] = cosf(angle);
        sines[i] = sinf(angle);
    }
    __syncthreads();
    const int first_head = blockIdx.y * heads_per_block, plain = channels - 2 * pairs;
    const int count = min(heads_per_block, heads - first_head) * channels;
    const long long start = (static_cast<long long>(blockIdx.x) * heads + first_head) * channels;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const int channel = i % channels - plain;  // among the rotated ones
        const float own = x[start + i];
        if (channel < 0) {
            out[start + i] = own;
            continue;
        }
        const bool is_odd = channel & 1;
        const float other = x[start + (is_odd ? i - 1 : i + 1)], cosine = cosines[channel / 2], sine = sines[channel / 2];
        out[start + i] = is_odd ? other * sine + own * cosine : own * cosine - other * sine;
    }
}

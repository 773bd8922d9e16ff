// Compressing runs of tokens into entries: mirrors dsv4/ops/compressor.py. A thread takes one channel of one entry.
#include "formats.cuh"

// kv, score [entries, slots, channels] -> out [entries, channels]
extern "C" __global__ void __launch_bounds__(128)
    compress(const float* kv, const float* score, float* out, int slots, int channels) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const long long start = static_cast<long long>(blockIdx.x) * slots * channels + channel;
    float largest = -infinity();
    for (int slot = 0; slot < slots; ++slot) largest = larger(largest, score[start + static_cast<long long>(slot) * channels]);
    float sum = 0, total = 0;
    for (int slot = 0; slot < slots; ++slot) {
        const long long place = start + static_cast<long long>(slot) * channels;
        const float weight = expf(score[place] - largest);
        sum += kv[place] * weight;
        total += weight;
    }
    out[static_cast<long long>(blockIdx.x) * channels + channel] = sum / total;
}

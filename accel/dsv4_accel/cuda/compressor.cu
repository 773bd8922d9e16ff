// Compressing runs of tokens into entries: mirrors dsv4/ops/compressor.py. A thread takes one channel of an entry's slots,
// or of every eighth of them where there are many; the number of slots alone decides.
#include "formats.cuh"
#include "warp.cuh"

constexpr int WARPS = 8;

// kv, score [entries, slots, channels] -> out [entries, channels]. `sharing` warps, 1 or all, share 32 channels of an entry.
extern "C" __global__ void __launch_bounds__(256)
    compress(const float* kv, const float* score, float* out, int slots, int channels, int sharing) {
    __shared__ float largest_of[WARPS][WARP], sums[WARPS][WARP], totals[WARPS][WARP];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first_of_group = warp - warp % sharing, first_slot = warp % sharing;
    const int channel = (blockIdx.y * (WARPS / sharing) + warp / sharing) * WARP + lane;
    const bool exists = channel < channels;
    const int end = exists ? slots : 0;
    const long long start = static_cast<long long>(blockIdx.x) * slots * channels + channel;

    float largest = -infinity();
#pragma unroll 4
    for (int slot = first_slot; slot < end; slot += sharing)
        largest = larger(largest, score[start + static_cast<long long>(slot) * channels]);
    largest_of[warp][lane] = largest;
    __syncthreads();
    for (int other = 0; other < sharing; ++other) largest = larger(largest, largest_of[first_of_group + other][lane]);

    float sum = 0, total = 0;
#pragma unroll 4
    for (int slot = first_slot; slot < end; slot += sharing) {
        const long long place = start + static_cast<long long>(slot) * channels;
        const float weight = expf(score[place] - largest);
        sum = fmaf(kv[place], weight, sum);
        total += weight;
    }
    sums[warp][lane] = sum;
    totals[warp][lane] = total;
    __syncthreads();
    if (!exists || first_slot != 0) return;
    sum = total = 0;
    for (int other = 0; other < sharing; ++other) {
        sum += sums[warp + other][lane];
        total += totals[warp + other][lane];
    }
    out[static_cast<long long>(blockIdx.x) * channels + channel] = sum / total;
}

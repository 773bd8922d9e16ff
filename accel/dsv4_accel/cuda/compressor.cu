// Compressing runs of tokens into entries: mirrors dsv4/ops/compressor.py, and compress_blocks of dsv4/ops/interface.py. A
// thread takes one channel of an entry's slots, or of every eighth of them where there are many; the number of slots alone
// decides.
#include "formats.cuh"
#include "warp.cuh"

constexpr int WARPS = 8;

// One entry by the block: `place(slot)` says where channel 0 of a slot stands in kv and score, or gives −1 where there is
// none. out [entries, channels]. `sharing` warps, 1 or all, share 32 channels of an entry.
template <class Place>
__device__ __forceinline__ void compress_slots(
    const float* kv, const float* score, float* out, int slots, int channels, int sharing, const Place& place) {
    __shared__ float largest_of[WARPS][WARP], sums[WARPS][WARP], totals[WARPS][WARP];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int first_of_group = warp - warp % sharing, first_slot = warp % sharing;
    const int channel = (blockIdx.y * (WARPS / sharing) + warp / sharing) * WARP + lane;
    const bool exists = channel < channels;
    const int end = exists ? slots : 0;

    float largest = -infinity();
#pragma unroll 4
    for (int slot = first_slot; slot < end; slot += sharing) {
        const long long first = place(slot);
        if (first >= 0) largest = larger(largest, score[first + channel]);
    }
    largest_of[warp][lane] = largest;
    __syncthreads();
    for (int other = 0; other < sharing; ++other) largest = larger(largest, largest_of[first_of_group + other][lane]);

    float sum = 0, total = 0;
#pragma unroll 4
    for (int slot = first_slot; slot < end; slot += sharing) {
        const long long first = place(slot);
        if (first < 0) continue;
        const float weight = expf(score[first + channel] - largest);
        sum = fmaf(kv[first + channel], weight, sum);
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

// kv, score [entries, slots, channels] -> out [entries, channels]. Blocks: entry, run of channels.
extern "C" __global__ void __launch_bounds__(256)
    compress(const float* kv, const float* score, float* out, int slots, int channels, int sharing) {
    const long long start = static_cast<long long>(blockIdx.x) * slots * channels;
    compress_slots(kv, score, out, slots, channels, sharing, [=](int slot) { return start + 1ll * slot * channels; });
}

// kv, score [batch, rows, width]: of positions from starts[b] − keep on; the entries of `ratio` tokens that positions from
// starts[b] on complete, `most` at most in a sequence -> out [batch, most, channels]. With a width of 2·channels an entry
// has the slots of the block before its own as well, in the first half. Blocks: entry, run of channels.
extern "C" __global__ void __launch_bounds__(256)
    compress_blocks(
        const float* kv, const float* score, const long long* starts, float* out, int rows, int keep, int ratio, int most,
        int width, int channels, int sharing) {
    const int sequence = blockIdx.x / most, number = blockIdx.x % most, slots = width / channels * ratio;
    const long long start = starts[sequence], behind = (start / ratio + number + 1) * ratio;  // the block's last position
    const long long first_row = static_cast<long long>(sequence) * rows;
    compress_slots(kv, score, out, slots, channels, sharing, [=](int slot) {
        const long long position = behind - slots + slot;
        if (position < 0) return -1ll;  // before the sequence
        const long long row = min(position - start + keep, rows - 1ll);  // of a block that is not complete: never stored
        return (first_row + row) * width + (slot >= slots - ratio ? width - channels : 0);
    });
}

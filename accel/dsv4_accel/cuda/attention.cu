// Attention of many query heads over one shared key-value head: mirrors dsv4/ops/attention.py.
//
// The keys of a query are cut into splits, whose places depend on nothing else. Each split has a softmax of its own, and
// they are joined in their order, the sink first. Where queries are few, each split has its blocks, and a second kernel
// joins what they leave behind; where queries are many, a block goes through all splits. Both compute the same numbers
// in the same order, so a query has the same bits in either way.
#include "angles.cuh"
#include "attention_keys.cuh"
#include "copies.cuh"
#include "shared.cuh"
#include "softmax.cuh"
#include "warp.cuh"

constexpr int THREADS = 256, WARPS = THREADS / WARP;
constexpr int TILE = 16;            // keys in shared memory at a time
constexpr int SLICES = 2 * WARPS;   // runs of channels that half a warp each multiplies
constexpr int QUADS = THREADS / 2;  // runs of four channels of a block's output
constexpr int SHORT_SPLIT = 32, SHORT_SPLITS = 32, LONG_SPLIT = 256;  // many blocks for few keys, not too many for many

// The first key of a split.
__device__ __forceinline__ int start_of(int split) {
    const int longer = max(split - SHORT_SPLITS, 0);
    return (split - longer) * SHORT_SPLIT + longer * LONG_SPLIT;
}

// What the threads of a block share.
template <int HEADS>
struct Memory {
    int padded, stride;     // channels up to whole slices; numbers from row to row, so that rows begin in other banks
    float *queries, *rows;  // [HEADS, stride], [TILE, stride]
    float *sums, *shares;   // [WARPS, HEADS, TILE], [TILE, HEADS + 4]
    float2* factors;        // [HEADS]

    __device__ __forceinline__ explicit Memory(int channels) {
        padded = (channels + 4 * SLICES - 1) / (4 * SLICES) * (4 * SLICES);
        stride = padded + 4;
        queries = dynamic_shared<float>();
        rows = queries + HEADS * stride;
        sums = rows + TILE * stride;
        shares = sums + WARPS * HEADS * TILE;
        factors = reinterpret_cast<float2*>(shares + TILE * (HEADS + 4));
    }

    // 16 neighbouring threads begin to copy a row; zeros behind its channels, or for null.
    __device__ __forceinline__ void begin_row(float* to, const float* from, int channels) const {
        for (int channel = threadIdx.x % 16 * 4; channel < padded; channel += 64) {
            if (from && channel < channels) begin_copy(to + channel, from + channel);
            else put(to + channel, make_float4(0, 0, 0, 0));
        }
    }
    // The same of a row of a cache; a packed one is read at once.
    __device__ __forceinline__ void begin_row(float* to, const Row& row, int channels) const {
        if (row.format.kind == FLOATS || !row.bytes)
            return begin_row(to, reinterpret_cast<const float*>(row.bytes), channels);
        for (int channel = threadIdx.x % 16 * 4; channel < padded; channel += 64)
            put(to + channel, numbers_at(row.bytes, row.format, channel));
    }
};

__device__ __forceinline__ float2 pair_at(const float* place) { return *reinterpret_cast<const float2*>(place); }

// The products of all heads with a tile's keys, summed over the channels of each warp.
//
// A thread has HEADS / 4 heads and TILE / 4 keys. Of 16 threads that share channels, neighbours differ in turns in
// heads and in keys, so that pairs of them read the same numbers of shared memory.
template <int HEADS>
__device__ __forceinline__ void multiply(const Memory<HEADS>& memory) {
    constexpr int OWN_HEADS = HEADS / 4, OWN_KEYS = TILE / 4;
    const int lane = threadIdx.x % WARP, width = memory.padded / SLICES, first = threadIdx.x / 16 * width;
    const int head = (lane & 1) | (lane >> 1 & 2), key = (lane >> 1 & 1) | (lane >> 2 & 2);
    const float *queries = memory.queries + head * memory.stride + first, *keys = memory.rows + key * memory.stride + first;
    float sums[OWN_HEADS][OWN_KEYS] = {};
#pragma unroll 1
    for (int channel = 0; channel < width; channel += 2) {
        float2 q[OWN_HEADS];
#pragma unroll
        for (int i = 0; i < OWN_HEADS; ++i) q[i] = pair_at(queries + 4 * i * memory.stride + channel);
#pragma unroll
        for (int j = 0; j < OWN_KEYS; ++j) {
            const float2 k = pair_at(keys + 4 * j * memory.stride + channel);
#pragma unroll
            for (int i = 0; i < OWN_HEADS; ++i) sums[i][j] = fmaf(q[i].y, k.y, fmaf(q[i].x, k.x, sums[i][j]));
        }
    }
    float* mine = memory.sums + threadIdx.x / WARP * HEADS * TILE + head * TILE + key;
#pragma unroll
    for (int i = 0; i < OWN_HEADS; ++i)
#pragma unroll
        for (int j = 0; j < OWN_KEYS; ++j) {
            const float sum = sums[i][j] + __shfl_xor_sync(ALL_LANES, sums[i][j], 16);
            if (lane < 16) mine[4 * i * TILE + 4 * j] = sum;
        }
}

// The shares of a tile's keys, and by how much what was summed before shrinks. Each thread has one key of one head;
// the 16 threads of a head all hold its softmax so far.
template <int HEADS>
__device__ __forceinline__ void soften(const Memory<HEADS>& memory, bool is_present, float scale, Softmax& softmax) {
    if (threadIdx.x >= HEADS * TILE) return;
    const int head = threadIdx.x / TILE, key = threadIdx.x % TILE;
    float product = 0;
    for (int warp = 0; warp < WARPS; ++warp) product += memory.sums[warp * HEADS * TILE + threadIdx.x];
    const float logit = is_present ? __fmul_rn(product, scale) : -infinity();
    float most = logit;
    for (int distance = TILE / 2; distance > 0; distance /= 2)
        most = larger(most, __shfl_xor_sync(ALL_LANES, most, distance));
    most = larger(softmax.largest, most);
    const float share = share_of(logit, most), factor = share_of(softmax.largest, most);
    float total = share;
    for (int distance = TILE / 2; distance > 0; distance /= 2) total += __shfl_xor_sync(ALL_LANES, total, distance);
    softmax.total = fmaf(softmax.total, factor, total);
    softmax.largest = most;
    memory.shares[key * (HEADS + 4) + head] = share;
    if (key == 0) memory.factors[head] = make_float2(factor, 0);
}

// Add the values of a tile's keys, by their shares, to the sums over the values before, which shrink. Each thread has
// half of the heads and four channels.
template <int HEADS>
__device__ __forceinline__ void add_values(const Memory<HEADS>& memory, int channel, float4 (&sums)[HEADS / 2]) {
    if (channel >= memory.padded) return;
    const int head = threadIdx.x / QUADS * (HEADS / 2);
#pragma unroll
    for (int i = 0; i < HEADS / 2; ++i) {
        const float factor = memory.factors[head + i].x;
        sums[i] = make_float4(sums[i].x * factor, sums[i].y * factor, sums[i].z * factor, sums[i].w * factor);
    }
#pragma unroll 2
    for (int key = 0; key < TILE; ++key) {
        const float4 value = vector_at(memory.rows + key * memory.stride + channel);
        const float* shares = memory.shares + key * (HEADS + 4) + head;
#pragma unroll
        for (int i = 0; i < HEADS / 2; i += 4) {
            const float4 four = vector_at(shares + i);
            sums[i] = add_scaled(sums[i], four.x, value);
            sums[i + 1] = add_scaled(sums[i + 1], four.y, value);
            sums[i + 2] = add_scaled(sums[i + 2], four.z, value);
            sums[i + 3] = add_scaled(sums[i + 3], four.w, value);
        }
    }
}

// One split: its softmax, for the threads of each head, and the sums over its values for the thread's channels.
template <int HEADS>
__device__ __forceinline__ Softmax attend(
    const Memory<HEADS>& memory, const Keys& keys, int split, int channel, float scale, float4 (&sums)[HEADS / 2]) {
    const int behind = min(start_of(split + 1), keys.count()), own = threadIdx.x / 16;
    Softmax softmax;
    for (int tile = start_of(split); tile < behind; tile += TILE) {
        const bool is_present = keys.row(tile + threadIdx.x % TILE).bytes != nullptr;
        if (!__any_sync(ALL_LANES, is_present)) continue;  // so it is for all warps: each has all keys of the tile
        __syncthreads();  // whoever reads the tile before has done so
        memory.begin_row(memory.rows + own * memory.stride, keys.row(tile + own), keys.channels);
        end_group();
        wait_for_all_but<0>();
        __syncthreads();
        multiply(memory);
        __syncthreads();
        soften(memory, is_present, scale, softmax);
        __syncthreads();
        add_values(memory, channel, sums);
    }
    return softmax;
}

// What of a query's output a block computes, and each of its threads. Blocks: query; runs of heads and of channels; split.
template <int HEADS>
struct Place {
    long long query = blockIdx.x;
    int head, channel;  // the first of the thread's sums
    int own, own_head;  // the head whose softmax it holds with 15 others, if own < HEADS: in the block, in all

    __device__ __forceinline__ explicit Place(int channels) {
        const int runs = (channels + 4 * QUADS - 1) / (4 * QUADS), first_head = blockIdx.y / runs * HEADS;
        head = first_head + threadIdx.x / QUADS * (HEADS / 2);
        channel = (blockIdx.y % runs * QUADS + threadIdx.x % QUADS) * 4;
        own = threadIdx.x / 16;
        own_head = first_head + own;
    }

    __device__ __forceinline__ void begin_queries(
        const Memory<HEADS>& memory, const float* queries, int heads, int channels) const {
        if (own >= HEADS) return;
        const float* row = own_head < heads ? queries + (query * heads + own_head) * channels : nullptr;
        memory.begin_row(memory.queries + own * memory.stride, row, channels);
    }
};

// queries [batch · length, heads, channels]; window and entries of one sequence after the other, [rows, channels] each as
// their format says, so many bytes apart; window_index [batch · length, from_window]; entry_index [batch · length,
// from_entries]. Channels are a multiple of 4. -> of each split the softmaxes [batch · length, splits, heads, 2], largest
// logit and total, and the sums over its values [batch · length, splits, heads, channels].
extern "C" __global__ void __launch_bounds__(256)
    attention_of_splits(
        const float* queries, const void* window, const long long* window_index, int from_window, int window_rows,
        long long window_step, int window_kind, int window_codes, int window_rotated, int window_block,
        const void* entries, const long long* entry_index, int from_entries, int entry_rows, long long entry_step,
        int entry_kind, int entry_codes, int entry_rotated, int entry_block, unsigned long long* status,
        int length, int heads, int channels, float scale,
        float* softmaxes, float* sums) {
    constexpr int HEADS = 8;
    const Memory<HEADS> memory(channels);
    const Place<HEADS> place(channels);
    const Keys keys = {
        {window, window_index, from_window, window_rows, window_step,
         {window_kind, window_codes, window_rotated, window_block}},
        {entries, entry_index, from_entries, entry_rows, entry_step, {entry_kind, entry_codes, entry_rotated, entry_block}},
        channels, static_cast<int>(place.query / length), status};
    place.begin_queries(memory, queries, heads, channels);
    float4 own[HEADS / 2] = {};
    const Softmax softmax = attend(memory, keys, blockIdx.z, place.channel, scale, own);
    const long long first = (place.query * gridDim.z + blockIdx.z) * heads;
    if (threadIdx.x % 16 == 0 && place.own < HEADS && place.own_head < heads)  // each run of channels finds the same
        reinterpret_cast<float2*>(softmaxes)[first + place.own_head] = make_float2(softmax.largest, softmax.total);
#pragma unroll
    for (int i = 0; i < HEADS / 2; ++i)
        if (place.head + i < heads && place.channel < channels)
            put(sums + (first + place.head + i) * channels + place.channel, own[i]);
}

// A channel of one head of a query: what `attention_of_splits` has left, and the head's sink, joined.
__device__ __forceinline__ float joined_splits(
    const float* softmaxes, const float* sums, float sink, long long query, int head, int channel, int splits, int heads,
    int channels) {
    Softmax all = of_sink(sink);
    float sum = 0;
#pragma unroll 4
    for (int split = 0; split < splits; ++split) {
        const long long place = (query * splits + split) * heads + head;
        Softmax other;
        other.largest = softmaxes[2 * place];
        other.total = softmaxes[2 * place + 1];
        sum = joined(sum, sums[place * channels + channel], all.join(other));
    }
    return sum / all.total;
}

// What `attention_of_splits` has left, and attn_sink [heads] -> output [batch · length, heads, channels], of which the last
// 2·pairs channels are turned as by rope.cu: positions [batch · length], frequencies [pairs]; pairs is 0 where none are.
// Blocks: query and head; run of channels. Threads: one channel each.
extern "C" __global__ void __launch_bounds__(128)
    join_splits(
        const float* softmaxes, const float* sums, const float* attn_sink, const long long* positions,
        const float* frequencies, float* output, int splits, int heads, int channels, int pairs) {
    const long long query = blockIdx.x / heads;
    const int head = blockIdx.x % heads, channel = blockIdx.y * blockDim.x + threadIdx.x;
    const bool exists = channel < channels;
    float own = exists ? joined_splits(softmaxes, sums, attn_sink[head], query, head, channel, splits, heads, channels) : 0;
    const float other = __shfl_xor_sync(ALL_LANES, own, 1);  // pairs begin at even channels
    if (!exists) return;
    const int turned_channel = channel - (channels - 2 * pairs);
    if (turned_channel >= 0) {
        float sine, cosine;
        sine_and_cosine(angle_of(positions[query], frequencies[turned_channel / 2]), sine, cosine);
        const bool is_odd = turned_channel % 2;
        const float2 pair = turned(is_odd ? make_float2(other, own) : make_float2(own, other), cosine, sine);
        own = is_odd ? pair.y : pair.x;
    }
    output[blockIdx.x * static_cast<long long>(channels) + channel] = own;
}

// The arguments as in `attention_of_splits`; attn_sink [heads] -> output [batch · length, heads, channels].
extern "C" __global__ void __launch_bounds__(256, 2)
    attention_of_queries(
        const float* queries, const void* window, const long long* window_index, int from_window, int window_rows,
        long long window_step, int window_kind, int window_codes, int window_rotated, int window_block,
        const void* entries, const long long* entry_index, int from_entries, int entry_rows, long long entry_step,
        int entry_kind, int entry_codes, int entry_rotated, int entry_block, unsigned long long* status,
        int length, int heads, int channels, float scale,
        const float* attn_sink, float* output, int splits) {
    constexpr int HEADS = 16;
    const Memory<HEADS> memory(channels);
    const Place<HEADS> place(channels);
    const Keys keys = {
        {window, window_index, from_window, window_rows, window_step,
         {window_kind, window_codes, window_rotated, window_block}},
        {entries, entry_index, from_entries, entry_rows, entry_step, {entry_kind, entry_codes, entry_rotated, entry_block}},
        channels, static_cast<int>(place.query / length), status};
    place.begin_queries(memory, queries, heads, channels);
    const int own_head = threadIdx.x / QUADS * (HEADS / 2);
    Softmax all = of_sink(place.own_head < heads ? attn_sink[place.own_head] : 0);
    float4 sums[HEADS / 2] = {};
    for (int split = 0; split < splits; ++split) {
        float4 own[HEADS / 2] = {};
        const float2 factors = all.join(attend(memory, keys, split, place.channel, scale, own));
        __syncthreads();  // whoever reads the factors of the last tile has done so
        if (threadIdx.x % 16 == 0) memory.factors[place.own] = factors;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < HEADS / 2; ++i) {
            const float2 both = memory.factors[own_head + i];
            sums[i] = make_float4(
                joined(sums[i].x, own[i].x, both), joined(sums[i].y, own[i].y, both), joined(sums[i].z, own[i].z, both),
                joined(sums[i].w, own[i].w, both));
        }
    }
    __syncthreads();
    if (threadIdx.x % 16 == 0) memory.factors[place.own] = make_float2(all.total, 0);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < HEADS / 2; ++i) {
        const float total = memory.factors[own_head + i].x;
        if (place.head + i < heads && place.channel < channels)
            put(output + (place.query * heads + place.head + i) * channels + place.channel,
                make_float4(sums[i].x / total, sums[i].y / total, sums[i].z / total, sums[i].w / total));
    }
}

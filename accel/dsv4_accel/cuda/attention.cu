// Attention of many query heads over one shared key-value head: mirrors dsv4/ops/attention.py.
//
// The keys of a query go in splits of 64, each a softmax of its own in four tiles of 16, and the splits are merged in
// their order, the sink first. Where queries are few, each split has a block and a second kernel merges what they leave
// behind; where they are many, one block does all splits. Both compute the same numbers in the same order.
#include "formats.cuh"
#include "shared.cuh"
#include "status.cuh"
#include "warp.cuh"

constexpr int HEADS = 16;     // that a block takes, so that what it gathers serves all of them
constexpr int TILE = 16;      // keys that it gathers at a time
constexpr int TILES = 4;      // of a split
constexpr int SLICES = 16;    // threads that share a dot product
constexpr int PAIRS = 4;      // heads, and keys, whose products one thread sums
constexpr int THREADS = 256;
constexpr int OWN_CHANNELS = 2;  // of the output, for each thread: channels <= 512

// What a query's keys are. Key number j is a row of the window, or behind those of an index one of the entries.
struct Keys {
    const float *window, *entries;  // of the query's sequence: [window_rows, channels], [entry_rows, channels]
    const long long *window_index, *entry_index;  // of the query
    int from_window, count;
    long long window_rows, entry_rows;
    int channels;
    unsigned long long* status;

    // The row of a key, null for one that is not there.
    __device__ __forceinline__ const float* row(int number) const {
        if (number >= count) return nullptr;
        const bool is_near = number < from_window;
        const long long index = is_near ? window_index[number] : entry_index[number - from_window];
        if (index < 0) return nullptr;
        const bool exists = is_near ? is_within(index, window_rows, NO_SUCH_WINDOW_ROW, status)
                                    : is_within(index, entry_rows, NO_SUCH_ENTRY, status);
        return exists ? (is_near ? window : entries) + index * channels : nullptr;
    }
};

// What a block shares. padded: the channels, and zeros up to a multiple of 4 · SLICES.
struct Memory {
    float *queries, *rows;                      // [HEADS, padded], [TILE, padded]
    float *logits, *shares;                     // [HEADS, TILE]
    float *factors, *merged, *largest, *total;  // [HEADS] each

    __device__ __forceinline__ explicit Memory(int padded) {
        queries = dynamic_shared<float>();
        rows = queries + HEADS * padded;
        logits = rows + TILE * padded;
        shares = logits + HEADS * TILE;
        factors = shares + HEADS * TILE;
        merged = factors + HEADS;
        largest = merged + HEADS;
        total = largest + HEADS;
    }
};

// Some rows into shared memory, zeros behind each and for one that is not there.
__device__ __forceinline__ void copy_row(float* to, const float* from, int channels, int padded, int first, int step) {
    for (int i = first; i < padded; i += step) to[i] = from && i < channels ? from[i] : 0;
}

__device__ __forceinline__ float4 vector_at(const float* place) { return *reinterpret_cast<const float4*>(place); }

__device__ __forceinline__ float dot(const float4& a, const float4& b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// logits [HEADS, TILE] of a tile: four heads and four keys for each run of 16 threads, which share the channels.
__device__ __forceinline__ void multiply_tile(const Memory& memory, int padded, float scale) {
    const int group = threadIdx.x / SLICES, slice = threadIdx.x % SLICES;
    const int head = group / (TILE / PAIRS) * PAIRS, key = group % (TILE / PAIRS) * PAIRS;
    float sums[PAIRS][PAIRS] = {};
    for (int channel = 4 * slice; channel < padded; channel += 4 * SLICES) {
        float4 q[PAIRS], k[PAIRS];
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            q[i] = vector_at(memory.queries + (head + i) * padded + channel);
            k[i] = vector_at(memory.rows + (key + i) * padded + channel);
        }
#pragma unroll
        for (int i = 0; i < PAIRS; ++i)
#pragma unroll
            for (int j = 0; j < PAIRS; ++j) sums[i][j] = dot(q[i], k[j], sums[i][j]);
    }
#pragma unroll
    for (int i = 0; i < PAIRS; ++i)
#pragma unroll
        for (int j = 0; j < PAIRS; ++j) {
            for (int distance = SLICES / 2; distance > 0; distance /= 2)
                sums[i][j] += __shfl_xor_sync(ALL_LANES, sums[i][j], distance);
            if (slice == i * PAIRS + j) memory.logits[(head + i) * TILE + key + j] = sums[i][j] * scale;
        }
}

// e^(x − largest), 0 for an x of −∞ also where nothing is larger.
__device__ __forceinline__ float share_of(float x, float largest) { return x == -infinity() ? 0 : expf(x - largest); }

// From a tile's logits to its shares of a softmax whose largest logit so far is `largest`: the run of 16 threads of a
// head, each with one key. Leaves the factor by which what came before shrinks.
__device__ __forceinline__ void soften_tile(const Memory& memory, bool is_present, float& largest, float& total) {
    const int head = threadIdx.x / TILE, key = threadIdx.x % TILE;
    const float logit = is_present ? memory.logits[head * TILE + key] : -infinity();
    float most = logit;
    for (int distance = TILE / 2; distance > 0; distance /= 2)
        most = larger(most, __shfl_xor_sync(ALL_LANES, most, distance));
    most = larger(largest, most);
    const float share = share_of(logit, most), factor = share_of(largest, most);
    float sum = share;
    for (int distance = TILE / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, distance);
    total = fmaf(total, factor, sum);
    largest = most;
    memory.shares[head * TILE + key] = share;
    if (key == 0) memory.factors[head] = factor;
}

// The output of one split, not yet divided: each thread's channels of all heads. largest and total go to shared memory.
__device__ __forceinline__ void attend(
    const Memory& memory, const Keys& keys, int first, int padded, float scale, float (&output)[HEADS][OWN_CHANNELS]) {
    const int behind = min(first + TILES * TILE, keys.count), own_row = threadIdx.x / SLICES;
    float largest = -infinity(), total = 0;
    for (int tile = first; tile < behind; tile += TILE) {
        __syncthreads();
        copy_row(memory.rows + own_row * padded, keys.row(tile + own_row), keys.channels, padded, threadIdx.x % SLICES, SLICES);
        const bool is_present = keys.row(tile + threadIdx.x % TILE) != nullptr;
        __syncthreads();
        multiply_tile(memory, padded, scale);
        __syncthreads();
        soften_tile(memory, is_present, largest, total);
        __syncthreads();
#pragma unroll
        for (int own = 0; own < OWN_CHANNELS; ++own) {
            const int channel = own * THREADS + threadIdx.x;
            if (channel >= padded) break;
#pragma unroll
            for (int head = 0; head < HEADS; ++head) output[head][own] *= memory.factors[head];
            for (int key = 0; key < TILE; ++key) {
                const float value = memory.rows[key * padded + channel];
#pragma unroll
                for (int head = 0; head < HEADS; ++head)
                    output[head][own] = fmaf(memory.shares[head * TILE + key], value, output[head][own]);
            }
        }
    }
    if (threadIdx.x % TILE == 0) {
        memory.largest[threadIdx.x / TILE] = largest;
        memory.total[threadIdx.x / TILE] = total;
    }
    __syncthreads();
}

// A softmax so far, joined by that of one more split: how much each of the two outputs counts from now on.
struct Softmax {
    float largest, total, old_factor, new_factor;

    __device__ __forceinline__ void join(float split_largest, float split_total) {
        const float most = larger(largest, split_largest);
        old_factor = share_of(largest, most);
        new_factor = share_of(split_largest, most);
        total = fmaf(total, old_factor, __fmul_rn(split_total, new_factor));
        largest = most;
    }
    __device__ __forceinline__ float joined(float before, float split) const {
        return fmaf(before, old_factor, __fmul_rn(split, new_factor));
    }
};

// queries [batch · length, heads, channels]; window [batch, window_rows, channels]; entries [batch, entry_rows, channels];
// window_index [batch · length, from_window], entry_index [batch · length, from_entries]; attn_sink [heads].
// Blocks: query, run of heads, split. One split for each block: largest, total [queries, splits, heads] and output
// [queries, splits, heads, channels] of the splits. All splits: output [queries, heads, channels].
template <bool ONE_SPLIT>
__device__ __forceinline__ void sparse_attention(
    const float* queries, const float* window, const long long* window_index, const float* entries,
    const long long* entry_index, const float* attn_sink, float* largest, float* total, float* output,
    unsigned long long* status, int length, int heads, int channels, int from_window, int from_entries, int window_rows,
    int entry_rows, float scale) {
    const int padded = (channels + 4 * SLICES - 1) / (4 * SLICES) * (4 * SLICES), first_head = blockIdx.y * HEADS;
    const Memory memory(padded);
    const long long query = blockIdx.x, sequence = query / length;
    const Keys keys = {
        window + sequence * window_rows * channels, entries + sequence * entry_rows * channels,
        window_index + query * from_window, entry_index + query * from_entries,
        from_window, from_window + from_entries, window_rows, entry_rows, channels, status};
    const int own_head = first_head + threadIdx.x / SLICES;
    copy_row(
        memory.queries + threadIdx.x / SLICES * padded,
        own_head < heads ? queries + (query * heads + own_head) * channels : nullptr, channels, padded,
        threadIdx.x % SLICES, SLICES);

    float merged[HEADS][OWN_CHANNELS] = {};
    const int splits = (keys.count + TILES * TILE - 1) / (TILES * TILE);
    Softmax softmax = {own_head < heads ? attn_sink[own_head] : 0, 1, 0, 0};
    for (int split = ONE_SPLIT ? blockIdx.z : 0; split < splits; ++split) {
        float part[HEADS][OWN_CHANNELS] = {};
        attend(memory, keys, split * TILES * TILE, padded, scale, part);
        if (ONE_SPLIT) {
            const long long place = (query * splits + split) * heads + first_head;
            for (int head = 0; head < min(HEADS, heads - first_head); ++head)
                if (threadIdx.x == 0) largest[place + head] = memory.largest[head], total[place + head] = memory.total[head];
#pragma unroll
            for (int i = 0; i < HEADS * OWN_CHANNELS; ++i) {
                const int head = i / OWN_CHANNELS, channel = i % OWN_CHANNELS * THREADS + threadIdx.x;
                if (first_head + head < heads && channel < channels)
                    output[(place + head) * channels + channel] = part[head][i % OWN_CHANNELS];
            }
            return;
        }
        softmax.join(memory.largest[threadIdx.x / SLICES], memory.total[threadIdx.x / SLICES]);
        if (threadIdx.x % SLICES == 0) {
            memory.factors[threadIdx.x / SLICES] = softmax.old_factor;
            memory.merged[threadIdx.x / SLICES] = softmax.new_factor;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < HEADS * OWN_CHANNELS; ++i) {
            const int head = i / OWN_CHANNELS, own = i % OWN_CHANNELS;
            const Softmax factors = {0, 0, memory.factors[head], memory.merged[head]};
            merged[head][own] = factors.joined(merged[head][own], part[head][own]);
        }
        __syncthreads();
    }
    if (threadIdx.x % SLICES == 0) memory.total[threadIdx.x / SLICES] = softmax.total;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < HEADS * OWN_CHANNELS; ++i) {
        const int head = i / OWN_CHANNELS, channel = i % OWN_CHANNELS * THREADS + threadIdx.x;
        if (first_head + head < heads && channel < channels)
            output[(query * heads + first_head + head) * channels + channel] =
                merged[head][i % OWN_CHANNELS] / memory.total[head];
    }
}

extern "C" __global__ void __launch_bounds__(256)
    attention_of_splits(
        const float* queries, const float* window, const long long* window_index, const float* entries,
        const long long* entry_index, const float* attn_sink, float* largest, float* total, float* output,
        unsigned long long* status, int length, int heads, int channels, int from_window, int from_entries, int window_rows,
        int entry_rows, float scale) {
    sparse_attention<true>(
        queries, window, window_index, entries, entry_index, attn_sink, largest, total, output, status, length, heads,
        channels, from_window, from_entries, window_rows, entry_rows, scale);
}

extern "C" __global__ void __launch_bounds__(256)
    attention_of_queries(
        const float* queries, const float* window, const long long* window_index, const float* entries,
        const long long* entry_index, const float* attn_sink, float* largest, float* total, float* output,
        unsigned long long* status, int length, int heads, int channels, int from_window, int from_entries, int window_rows,
        int entry_rows, float scale) {
    sparse_attention<false>(
        queries, window, window_index, entries, entry_index, attn_sink, largest, total, output, status, length, heads,
        channels, from_window, from_entries, window_rows, entry_rows, scale);
}

// What `attention_of_splits` has left -> output [queries, heads, channels]. Blocks: query and head; threads: channels.
extern "C" __global__ void __launch_bounds__(256)
    merge_splits(
        const float* largest, const float* total, const float* parts, const float* attn_sink, float* output, int splits,
        int heads, int channels) {
    const long long query = blockIdx.x, head = blockIdx.y;
    for (int channel = threadIdx.x; channel < channels; channel += blockDim.x) {
        Softmax softmax = {attn_sink[head], 1, 0, 0};
        float merged = 0;
        for (int split = 0; split < splits; ++split) {
            const long long place = (query * splits + split) * heads + head;
            softmax.join(largest[place], total[place]);
            merged = softmax.joined(merged, parts[place * channels + channel]);
        }
        output[(query * heads + head) * channels + channel] = merged / softmax.total;
    }
}

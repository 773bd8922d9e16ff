// The scores of the lightning indexer: mirrors index_scores of dsv4/ops/indexer.py.
//
// A block takes 128 keys and one query, whose heads it goes through 64 at a time. While it multiplies 32 channels of
// both, the next 32 are on their way. A key's score is summed in an order that depends on nothing else.
#include "copies.cuh"
#include "formats.cuh"
#include "shared.cuh"
#include "warp.cuh"

constexpr int KEYS = 128, HEADS = 64, DEPTH = 32, THREADS = 256;
constexpr int HEAD_LANES = 8, OWN_HEADS = HEADS / HEAD_LANES;  // in a warp, heads lie along 8 lanes, keys along 4
constexpr int KEY_LANES = THREADS / HEAD_LANES, OWN_KEYS = KEYS / KEY_LANES;
constexpr int STRIDE = DEPTH + 4;  // of a row in shared memory, so that neighbours lie in other banks

// Begin to copy some channels of ROWS rows of a matrix [rows, width]; zeros beyond either.
template <int ROWS>
__device__ __forceinline__ void begin_rows(
    float* to, const float* matrix, int first_row, int rows, int first_channel, int width) {
#pragma unroll
    for (int i = 0; i < ROWS * DEPTH / 4 / THREADS; ++i) {
        const int vector = i * THREADS + threadIdx.x, row = vector / (DEPTH / 4), channel = vector % (DEPTH / 4) * 4;
        float* place = to + row * STRIDE + channel;
        if (first_row + row < rows && first_channel + channel < width)
            begin_copy(place, matrix + static_cast<long long>(first_row + row) * width + first_channel + channel);
        else put(place, make_float4(0, 0, 0, 0));
    }
}

// Which heads and keys a thread multiplies: every 8th head, every 32nd key. Neighbouring lanes differ in turns in
// heads and in keys, so that pairs of them read the same numbers of shared memory.
struct Lane {
    int head = (threadIdx.x & 1) | (threadIdx.x >> 1 & 2) | (threadIdx.x >> 2 & 4);
    int key = (threadIdx.x >> 1 & 1) | (threadIdx.x >> 2 & 2) | threadIdx.x / WARP * 4;
};

// Add the products of 32 channels: keys [KEYS, STRIDE], queries [HEADS, STRIDE].
__device__ __forceinline__ void multiply(
    const float* keys, const float* queries, const Lane& lane, float (&products)[OWN_KEYS][OWN_HEADS]) {
#pragma unroll 1
    for (int channel = 0; channel < DEPTH; channel += 4) {
        float4 q[OWN_HEADS];
#pragma unroll
        for (int i = 0; i < OWN_HEADS; ++i) q[i] = vector_at(queries + (lane.head + i * HEAD_LANES) * STRIDE + channel);
#pragma unroll
        for (int j = 0; j < OWN_KEYS; ++j) {
            const float4 k = vector_at(keys + (lane.key + j * KEY_LANES) * STRIDE + channel);
#pragma unroll
            for (int i = 0; i < OWN_HEADS; ++i) products[j][i] = dot(q[i], k, products[j][i]);
        }
    }
}

// Add the weighted products of 64 heads to the scores, and begin anew.
__device__ __forceinline__ void add_heads(
    const float* weights, int first_head, int heads, const Lane& lane, float (&products)[OWN_KEYS][OWN_HEADS],
    float (&scores)[OWN_KEYS]) {
#pragma unroll
    for (int i = 0; i < OWN_HEADS; ++i) {
        const int head = first_head + lane.head + i * HEAD_LANES;
#pragma unroll
        for (int j = 0; j < OWN_KEYS; ++j) {
            if (head < heads) scores[j] = fmaf(weights[head], larger(products[j][i], 0), scores[j]);
            products[j][i] = 0;
        }
    }
}

// queries [batch · length, heads, width], keys [batch, count, width], key_step numbers from one sequence to the next,
// weights [batch · length, heads] -> scores [batch · length, count]. visible [batch · length], or null: keys from it on
// need no score. The width is a multiple of 4. Blocks: query, run of keys.
extern "C" __global__ void __launch_bounds__(256, 2)
    index_scores(
        const float* queries, const float* keys, const float* weights, const long long* visible, float* scores,
        int length, int heads, int count, int width, long long key_step) {
    const long long query = blockIdx.x;
    const int first_key = blockIdx.y * KEYS;
    if (visible && first_key >= visible[query]) return;
    const float *own_queries = queries + query * heads * width, *own_keys = keys + query / length * key_step;
    const Lane lane;
    const int depths = (width + DEPTH - 1) / DEPTH, steps = (heads + HEADS - 1) / HEADS * depths;
    float* const tiles = dynamic_shared<float>();  // two times keys and queries
    const auto begin = [&](int step) {
        float* tile = tiles + step % 2 * (KEYS + HEADS) * STRIDE;
        begin_rows<KEYS>(tile, own_keys, first_key, count, step % depths * DEPTH, width);
        begin_rows<HEADS>(tile + KEYS * STRIDE, own_queries, step / depths * HEADS, heads, step % depths * DEPTH, width);
    };
    float products[OWN_KEYS][OWN_HEADS] = {}, sums[OWN_KEYS] = {};
    begin(0);
    end_group();
    for (int step = 0; step < steps; ++step) {
        if (step + 1 < steps) begin(step + 1);
        end_group();
        wait_for_all_but<1>();
        __syncthreads();
        const float* tile = tiles + step % 2 * (KEYS + HEADS) * STRIDE;
        multiply(tile, tile + KEYS * STRIDE, lane, products);
        __syncthreads();  // before the copies after the next ones come to the same place
        if (step % depths == depths - 1)
            add_heads(weights + query * heads, step / depths * HEADS, heads, lane, products, sums);
    }
#pragma unroll
    for (int j = 0; j < OWN_KEYS; ++j) {
        for (int lanes = 1; lanes < WARP; lanes *= 4)  // those of other heads
            sums[j] += __shfl_xor_sync(ALL_LANES, sums[j], lanes);
        const int key = first_key + lane.key + j * KEY_LANES;
        if (lane.head == 0 && key < count) scores[query * count + key] = sums[j];
    }
}

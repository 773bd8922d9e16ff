// The scores of the lightning indexer: mirrors index_scores of dsv4/ops/indexer.py.
//
// A block takes 128 keys and one query, whose heads it goes through 64 at a time; each of its 128 threads sums the
// products of 8 keys with 8 heads in registers. The eight threads that share keys then add up their heads.
#include "formats.cuh"
#include "warp.cuh"

constexpr int KEYS = 128, HEADS = 64, DEPTH = 16, OWN = 8, HEAD_THREADS = HEADS / OWN;

// Columns first … first + DEPTH of some rows of a matrix [rows, width], transposed, zeros beyond either: from `row` on.
template <int ROWS>
__device__ __forceinline__ void load_transposed(
    float (&tile)[DEPTH][ROWS + 4], const float* matrix, long long row, long long rows, int first, int width) {
    for (int i = threadIdx.x; i < ROWS * DEPTH; i += blockDim.x) {
        const int r = i / DEPTH, column = i % DEPTH;
        const bool exists = row + r < rows && first + column < width;
        tile[column][r] = exists ? matrix[(row + r) * width + first + column] : 0;
    }
}

// queries [batch · length, heads, width], keys [batch, count, width], weights [batch · length, heads] -> scores
// [batch · length, count]. visible [batch · length], or null: keys from it on need no score.
extern "C" __global__ void __launch_bounds__(128)
    index_scores(const float* queries, const float* keys, const float* weights, const long long* visible, float* scores,
                 int length, int heads, int count, int width) {
    __shared__ float key_tile[DEPTH][KEYS + 4], query_tile[DEPTH][HEADS + 4];
    const long long query = blockIdx.x, first_key = static_cast<long long>(blockIdx.y) * KEYS;
    if (visible && first_key >= visible[query]) return;
    const float* own_queries = queries + query * heads * width;
    const float* own_keys = keys + query / length * count * width;
    const int key = threadIdx.x / HEAD_THREADS * OWN, head = threadIdx.x % HEAD_THREADS * OWN;
    float score[OWN] = {};
    for (int first_head = 0; first_head < heads; first_head += HEADS) {
        float products[OWN][OWN] = {};
        for (int first = 0; first < width; first += DEPTH) {
            __syncthreads();
            load_transposed<KEYS>(key_tile, own_keys, first_key, count, first, width);
            load_transposed<HEADS>(query_tile, own_queries, first_head, heads, first, width);
            __syncthreads();
#pragma unroll
            for (int column = 0; column < DEPTH; ++column) {
                float one[OWN], other[OWN];
#pragma unroll
                for (int i = 0; i < OWN; ++i) one[i] = key_tile[column][key + i], other[i] = query_tile[column][head + i];
#pragma unroll
                for (int i = 0; i < OWN; ++i)
#pragma unroll
                    for (int j = 0; j < OWN; ++j) products[i][j] += one[i] * other[j];
            }
        }
#pragma unroll
        for (int j = 0; j < OWN; ++j) {
            const int number = first_head + head + j;
            if (number >= heads) break;
            const float weight = weights[query * heads + number];
#pragma unroll
            for (int i = 0; i < OWN; ++i) score[i] += weight * larger(products[i][j], 0);
        }
    }
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        for (int distance = HEAD_THREADS / 2; distance > 0; distance /= 2)
            score[i] += __shfl_xor_sync(ALL_LANES, score[i], distance);
        if (head == 0 && first_key + key + i < count) scores[query * count + first_key + key + i] = score[i];
    }
}

// Hyper-connections: mirrors dsv4/ops/mhc.py. The products of a token's streams with the rows of fn are summed in parts of
// a fixed size, so that many warps share one token. Then the parts are added up and make the weights: for few tokens by the
// block that is done last, else by a second kernel.
#include "formats.cuh"
#include "last_block.cuh"
#include "vectors.cuh"
#include "warp.cuh"

constexpr int PART = 1024;  // channels that a warp of `project` sums
constexpr int MIX_THREADS = 64;
constexpr int MAX_STREAMS = 8;

__device__ __forceinline__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// Four numbers of a row from column i on, with zeros for those from `end` on. Rows in vectors are made of whole ones: then
// it reads in any case, from column `other` where need be, so that nothing holds up the next read.
template <bool in_vectors>
__device__ __forceinline__ float4 four_at(const float* row, int i, int end, int other) {
    const float* place = row + i;
    if (!in_vectors)
        return make_float4(i < end ? place[0] : 0, i + 1 < end ? place[1] : 0, i + 2 < end ? place[2] : 0,
                           i + 3 < end ? place[3] : 0);
    const float4 found = vector_at(i < end ? place : row + other);
    return i < end ? found : make_float4(0, 0, 0, 0);
}

// Adds up over a warp what `project` has of some rows and tokens, and writes those that exist.
template <int TOKENS, int ROWS>
__device__ __forceinline__ void write_sums(float (&products)[ROWS][TOKENS], float (&squares)[TOKENS], float* sums,
                                           long long first_token, int tokens, int first_row, int rows) {
    constexpr int LANES = WARP / TOKENS;  // that get the sums of one token
    const int lane = threadIdx.x % WARP;
    const long long token = first_token + lane / LANES;
    const bool writes = lane % LANES == 0 && token < tokens;
    float* own = sums + (token * gridDim.y + blockIdx.y) * (rows + 1);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const float sum = warp_sums(products[r]);
        if (writes && first_row + r < rows) own[first_row + r] = sum;
    }
    const float sum = warp_sums(squares);
    if (writes && first_row == 0) own[rows] = sum;
}

// streams [tokens, width], fn [rows, width] -> sums [tokens, parts, rows + 1]: of each part of the channels the products
// with each row of fn and, behind them, the sum of squares. A warp takes TOKENS tokens and ROWS rows of one part, and reads
// AHEAD vectors of each before it multiplies; whatever these are, a sum is formed in the same order.
template <int TOKENS, int ROWS, int AHEAD, bool in_vectors>
__device__ __forceinline__ void project(const float* streams, const float* fn, float* sums, int tokens, int width, int rows) {
    const int groups = (rows + ROWS - 1) / ROWS, lane = threadIdx.x % WARP;
    const long long number = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    const long long first_token = number / groups * TOKENS;
    const int first_row = static_cast<int>(number % groups) * ROWS;
    if (first_token >= tokens) return;  // the whole warp
    const float *token_at[TOKENS], *row_at[ROWS];  // beyond the last the last again, whose sums are not written
#pragma unroll
    for (int t = 0; t < TOKENS; ++t) token_at[t] = streams + min(first_token + t, tokens - 1ll) * width;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) row_at[r] = fn + static_cast<long long>(min(first_row + r, rows - 1)) * width;

    float products[ROWS][TOKENS] = {}, squares[TOKENS] = {};
    const int first = static_cast<int>(blockIdx.y) * PART, end = min(width, first + PART);
    for (int start = first; start < end; start += AHEAD * 4 * WARP) {
        float4 numbers[AHEAD][TOKENS], factors[AHEAD][ROWS];
#pragma unroll
        for (int k = 0; k < AHEAD; ++k) {
            const int i = start + 4 * (k * WARP + lane);
#pragma unroll
            for (int t = 0; t < TOKENS; ++t) numbers[k][t] = four_at<in_vectors>(token_at[t], i, end, first);
#pragma unroll
            for (int r = 0; r < ROWS; ++r) factors[k][r] = four_at<in_vectors>(row_at[r], i, end, first);
        }
#pragma unroll
        for (int k = 0; k < AHEAD; ++k)
#pragma unroll
            for (int t = 0; t < TOKENS; ++t) {
                squares[t] = dot(numbers[k][t], numbers[k][t], squares[t]);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) products[r][t] = dot(numbers[k][t], factors[k][r], products[r][t]);
            }
    }
    write_sums(products, squares, sums, first_token, tokens, first_row, rows);
}

extern "C" __global__ void __launch_bounds__(128)
    mhc_project(const float* streams, const float* fn, float* sums, int tokens, int width, int rows) {
    project<8, 6, 1, true>(streams, fn, sums, tokens, width, rows);
}

// For few tokens: more warps, and registers for all that they read ahead, rather than more blocks at once.
__device__ __forceinline__ void project_few(
    const float* streams, const float* fn, float* sums, int tokens, int width, int rows) {
    project<1, 1, 8, true>(streams, fn, sums, tokens, width, rows);
}

extern "C" __global__ void __launch_bounds__(128, 1)
    mhc_project_few(const float* streams, const float* fn, float* sums, int tokens, int width, int rows) {
    project_few(streams, fn, sums, tokens, width, rows);
}

// For a width that is no multiple of 4.
extern "C" __global__ void __launch_bounds__(128)
    mhc_project_odd(const float* streams, const float* fn, float* sums, int tokens, int width, int rows) {
    project<1, 1, 1, false>(streams, fn, sums, tokens, width, rows);
}

// The sums of a block's tokens over their parts, in shared memory: mixes [tokens of the block, rows + 1].
__device__ __forceinline__ void add_parts(
    const float* sums, float* mixes, long long first_token, int tokens, int tokens_per_block, int parts, int rows) {
    const int tokens_here = static_cast<int>(min(tokens - first_token, 1ll * tokens_per_block));
    for (int i = threadIdx.x; i < tokens_here * (rows + 1); i += blockDim.x) {
        const float* own = sums + (first_token + i / (rows + 1)) * parts * (rows + 1) + i % (rows + 1);
        float total = 0;
#pragma unroll 8
        for (int part = 0; part < parts; ++part) total += fresh(own + static_cast<long long>(part) * (rows + 1));
        mixes[i] = total;
    }
    __syncthreads();
}

__device__ __forceinline__ float inverse_root(const float* mixes, int rows, int width, float norm_eps) {
    return 1 / sqrtf(mixes[rows] / width + norm_eps);
}

// LANES neighbouring lanes share a token; lane j keeps row j of comb, row[i] for i < n. Lanes from n on keep a copy of the
// last row, which does not count.
template <int LANES>
__device__ __forceinline__ void normalise_row(float (&row)[LANES], int n, float eps) {
    float total = eps;
#pragma unroll
    for (int i = 0; i < LANES; ++i)
        if (i < n) total += row[i];
    const float factor = 1 / total;
#pragma unroll
    for (int i = 0; i < LANES; ++i) row[i] *= factor;
}

template <int LANES>
__device__ __forceinline__ void normalise_columns(float (&row)[LANES], int n, float eps, bool counts) {
#pragma unroll
    for (int i = 0; i < LANES; ++i) {
        if (i >= n) continue;
        float total = counts ? row[i] : 0;
#pragma unroll
        for (int distance = LANES / 2; distance > 0; distance /= 2)
            total += __shfl_xor_sync(ALL_LANES, total, distance);
        row[i] *= 1 / (total + eps);
    }
}

template <int LANES>
__device__ __forceinline__ void sinkhorn(float (&row)[LANES], int n, int iterations, float eps, bool counts) {
    float largest = -infinity();
#pragma unroll
    for (int i = 0; i < LANES; ++i)
        if (i < n) largest = larger(largest, row[i]);
#pragma unroll
    for (int i = 0; i < LANES; ++i) row[i] = expf(row[i] - largest);
    normalise_row(row, n, 0);  // a softmax is the first of the rounds
#pragma unroll
    for (int i = 0; i < LANES; ++i) row[i] += eps;
    normalise_columns(row, n, eps, counts);
    for (int round = 1; round < iterations; ++round) {
        normalise_row(row, n, eps);
        normalise_columns(row, n, eps, counts);
    }
}

// The weights of a run of THREADS / LANES tokens.
template <int LANES, int THREADS>
__device__ __forceinline__ void weigh(
    const float* sums, const float* base, const float* scale, float* pre, float* post, float* comb, int run, int tokens,
    int parts, int width, int n, int iterations, float eps, float norm_eps) {
    constexpr int TOKENS = THREADS / LANES;
    __shared__ float mixes[TOKENS * ((2 + LANES) * LANES + 1)];
    const int rows = (2 + n) * n, lane = threadIdx.x % LANES, j = min(lane, n - 1);
    add_parts(sums, mixes, 1ll * run * TOKENS, tokens, TOKENS, parts, rows);
    const long long token = 1ll * run * TOKENS + threadIdx.x / LANES;
    const bool exists = token < tokens;
    const float* own = mixes + (exists ? threadIdx.x / LANES : 0) * (rows + 1);
    const float factor = inverse_root(own, rows, width, norm_eps);
    float row[LANES];
#pragma unroll
    for (int i = 0; i < LANES; ++i) {
        const int number = 2 * n + j * n + min(i, n - 1);
        row[i] = own[number] * factor * scale[2] + base[number];
    }
    sinkhorn(row, n, iterations, eps, lane < n);
    if (!exists || lane >= n) return;
    pre[token * n + j] = sigmoid(own[j] * factor * scale[0] + base[j]) + eps;
    post[token * n + j] = 2 * sigmoid(own[n + j] * factor * scale[1] + base[n + j]);
#pragma unroll
    for (int i = 0; i < LANES; ++i)
        if (i < n) comb[(token * n + j) * n + i] = row[i];
}

// sums as `mhc_project` leaves them; base [(2 + n)n]; scale [3] -> pre, post [tokens, n], comb [tokens, n, n]
extern "C" __global__ void __launch_bounds__(64)
    mhc_weights(const float* sums, const float* base, const float* scale, float* pre, float* post, float* comb, int tokens,
                int parts, int width, int n, int iterations, float eps, float norm_eps) {
    weigh<MAX_STREAMS, MIX_THREADS>(
        sums, base, scale, pre, post, comb, blockIdx.x, tokens, parts, width, n, iterations, eps, norm_eps);
}

// The same for n = 4, as it is in the released models.
extern "C" __global__ void __launch_bounds__(64)
    mhc_weights_of_four(const float* sums, const float* base, const float* scale, float* pre, float* post, float* comb,
                        int tokens, int parts, int width, int iterations, float eps, float norm_eps) {
    weigh<4, MIX_THREADS>(
        sums, base, scale, pre, post, comb, blockIdx.x, tokens, parts, width, 4, iterations, eps, norm_eps);
}

// Both at once for at most 32 tokens of four streams. arrived: a counter of 0.
extern "C" __global__ void __launch_bounds__(128, 1)
    mhc_weights_few(const float* streams, const float* fn, float* sums, unsigned* arrived, const float* base,
                    const float* scale, float* pre, float* post, float* comb, int tokens, int width, int iterations, float eps,
                    float norm_eps) {
    project_few(streams, fn, sums, tokens, width, 24);
    if (!is_last_block(arrived, gridDim.x * gridDim.y)) return;
    weigh<4, 128>(sums, base, scale, pre, post, comb, 0, tokens, gridDim.y, width, 4, iterations, eps, norm_eps);
}

// sums of the rows of fn [n, width]; base [n]; scale [1] -> pre [tokens, n]
extern "C" __global__ void __launch_bounds__(64)
    mhc_head_weights(const float* sums, const float* base, const float* scale, float* pre, int tokens, int parts, int width,
                     int n, float eps, float norm_eps) {
    constexpr int TOKENS = MIX_THREADS / MAX_STREAMS;
    __shared__ float mixes[TOKENS * (MAX_STREAMS + 1)];
    const long long first_token = static_cast<long long>(blockIdx.x) * TOKENS, token = first_token + threadIdx.x / MAX_STREAMS;
    add_parts(sums, mixes, first_token, tokens, TOKENS, parts, n);
    const int j = threadIdx.x % MAX_STREAMS;
    if (token >= tokens || j >= n) return;
    const float* own = mixes + threadIdx.x / MAX_STREAMS * (n + 1);
    pre[token * n + j] = sigmoid(own[j] * inverse_root(own, n, width, norm_eps) * scale[0] + base[j]) + eps;
}

// Hyper-connections: mirrors dsv4/ops/mhc.py. The products of a token's streams with the rows of fn are summed in parts
// of a fixed size, so that many blocks share one token, and a second kernel adds the parts up and mixes.
#include "formats.cuh"
#include "warp.cuh"

constexpr int PART = 1024;    // channels that a block of `mhc_project` sums
constexpr int TOKENS = 4;     // tokens that it takes together, which share what is read of fn
constexpr int MAX_STREAMS = 8;

__device__ __forceinline__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }

// streams [tokens, width], fn [rows, width] -> sums [tokens, parts, rows + 1]: of each part of the channels the products
// with each row of fn and, behind them, the sum of squares.
extern "C" __global__ void __launch_bounds__(256)
    mhc_project(const float* streams, const float* fn, float* sums, int tokens, int width, int rows) {
    __shared__ float numbers[TOKENS][PART];
    const int first = blockIdx.x * PART, count = min(PART, width - first), first_token = blockIdx.y * TOKENS;
    for (int t = 0; t < TOKENS; ++t)
        for (int i = threadIdx.x; i < count; i += blockDim.x)
            numbers[t][i] = first_token + t < tokens ? streams[static_cast<long long>(first_token + t) * width + first + i] : 0;
    __syncthreads();
    const int lane = threadIdx.x % WARP;
    for (int row = threadIdx.x / WARP; row <= rows; row += blockDim.x / WARP) {
        float totals[TOKENS] = {};
        for (int i = lane; i < count; i += WARP) {
            const float factor = row < rows ? fn[static_cast<long long>(row) * width + first + i] : 0;
#pragma unroll
            for (int t = 0; t < TOKENS; ++t) totals[t] += numbers[t][i] * (row < rows ? factor : numbers[t][i]);
        }
#pragma unroll
        for (int t = 0; t < TOKENS; ++t) {
            const float total = warp_sum(totals[t]);
            if (lane == 0 && first_token + t < tokens)
                sums[(static_cast<long long>(first_token + t) * gridDim.x + blockIdx.x) * (rows + 1) + row] = total;
        }
    }
}

// The product of a token's streams, normalised, with a row of fn: the sum of its parts over the root mean square.
__device__ __forceinline__ float mix_of(const float* sums, int parts, int rows, int row, float root) {
    float total = 0;
    for (int part = 0; part < parts; ++part) total += sums[part * (rows + 1) + row];
    return total / root;
}

__device__ __forceinline__ float root_mean_square(const float* sums, int parts, int rows, int width, float norm_eps) {
    return sqrtf(mix_of(sums, parts, rows, rows, 1) / width + norm_eps);
}

// Eight lanes, side by side, share a token; lane j keeps row j of comb, row[i] for i < n, and lanes from n on keep zeros.
__device__ __forceinline__ void normalise_rows(float (&row)[MAX_STREAMS], int n, float eps_in_divisor, float eps_behind) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < MAX_STREAMS; ++i)
        if (i < n) total += row[i];
#pragma unroll
    for (int i = 0; i < MAX_STREAMS; ++i)
        if (i < n) row[i] = row[i] / (total + eps_in_divisor) + eps_behind;
}

__device__ __forceinline__ void normalise_columns(float (&row)[MAX_STREAMS], int n, float eps) {
    const bool is_row = static_cast<int>(threadIdx.x % MAX_STREAMS) < n;
#pragma unroll
    for (int i = 0; i < MAX_STREAMS; ++i) {
        if (i >= n) continue;
        float total = is_row ? row[i] : 0;
        for (int distance = MAX_STREAMS / 2; distance > 0; distance /= 2)
            total += __shfl_xor_sync(ALL_LANES, total, distance);
        row[i] = row[i] / (total + eps);
    }
}

// sums as `mhc_project` leaves them; base [(2 + n)n]; scale [3] -> pre, post [tokens, n], comb [tokens, n, n]
extern "C" __global__ void __launch_bounds__(128)
    mhc_weights(const float* sums, const float* base, const float* scale, float* pre, float* post, float* comb, int tokens,
                int parts, int width, int n, int iterations, float eps, float norm_eps) {
    const int token = (blockIdx.x * blockDim.x + threadIdx.x) / MAX_STREAMS, lane = threadIdx.x % MAX_STREAMS;
    const int rows = (2 + n) * n, j = min(lane, n - 1);
    const float* own = sums + static_cast<long long>(min(token, tokens - 1)) * parts * (rows + 1);
    const float root = root_mean_square(own, parts, rows, width, norm_eps);
    const float in = sigmoid(mix_of(own, parts, rows, j, root) * scale[0] + base[j]) + eps;
    const float out = 2 * sigmoid(mix_of(own, parts, rows, n + j, root) * scale[1] + base[n + j]);

    float row[MAX_STREAMS], largest = -infinity();
#pragma unroll
    for (int i = 0; i < MAX_STREAMS; ++i) {
        const int number = 2 * n + j * n + min(i, n - 1);
        row[i] = mix_of(own, parts, rows, number, root) * scale[2] + base[number];
        largest = larger(largest, row[i]);
    }
#pragma unroll
    for (int i = 0; i < MAX_STREAMS; ++i) row[i] = expf(row[i] - largest);
    normalise_rows(row, n, 0, eps);  // a softmax is the first of the rounds
    normalise_columns(row, n, eps);
    for (int round = 1; round < iterations; ++round) {
        normalise_rows(row, n, eps, 0);
        normalise_columns(row, n, eps);
    }

    if (token >= tokens || lane >= n) return;
    const long long place = static_cast<long long>(token) * n + lane;
    pre[place] = in;
    post[place] = out;
#pragma unroll
    for (int i = 0; i < MAX_STREAMS; ++i)
        if (i < n) comb[place * n + i] = row[i];
}

// sums of the rows of fn [n, width]; base [n]; scale [1] -> pre [tokens, n]
extern "C" __global__ void __launch_bounds__(128)
    mhc_head_weights(const float* sums, const float* base, const float* scale, float* pre, int tokens, int parts, int width,
                     int n, float eps, float norm_eps) {
    const int number = blockIdx.x * blockDim.x + threadIdx.x, token = number / n, j = number % n;
    if (token >= tokens) return;
    const float* own = sums + static_cast<long long>(token) * parts * (n + 1);
    const float root = root_mean_square(own, parts, n, width, norm_eps);
    pre[number] = sigmoid(mix_of(own, parts, n, j, root) * scale[0] + base[j]) + eps;
}

// streams [tokens, n, channels], pre [tokens, n] -> out [tokens, channels]
extern "C" __global__ void __launch_bounds__(256)
    mhc_collapse(const float* streams, const float* pre, float* out, int n, int channels) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const long long token = blockIdx.x;
    float total = 0;
    for (int j = 0; j < n; ++j) total += pre[token * n + j] * streams[(token * n + j) * channels + channel];
    out[token * channels + channel] = total;
}

// streams [tokens, n, channels], output [tokens, channels], post [tokens, n], comb [tokens, n, n] -> out as streams:
// comb is used transposed.
extern "C" __global__ void __launch_bounds__(256)
    mhc_mix(const float* streams, const float* output, const float* post, const float* comb, float* out, int n, int channels) {
    const int channel = blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= channels) return;
    const long long token = blockIdx.x;
    const float added = output[token * channels + channel];
    float old[MAX_STREAMS];
#pragma unroll
    for (int j = 0; j < MAX_STREAMS; ++j)
        if (j < n) old[j] = streams[(token * n + j) * channels + channel];
    for (int i = 0; i < n; ++i) {
        float total = 0;
#pragma unroll
        for (int j = 0; j < MAX_STREAMS; ++j)
            if (j < n) total += comb[(token * n + j) * n + i] * old[j];
        out[(token * n + i) * channels + channel] = post[token * n + i] * added + total;
    }
}

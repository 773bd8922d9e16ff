// Which experts each token visits, and how much each counts: mirrors dsv4/ops/moe.py. One warp per token.
#include "status.cuh"
#include "warp.cuh"

constexpr int SQRTSOFTPLUS = 0, SIGMOID = 1;  // the third is softmax; route.py has the same numbers
constexpr int WARPS = 4;
constexpr int SHARED_EXPERTS = 512;  // route.py gives memory for the ranks of more experts

// What the scores of one token's experts come from.
struct Gate {
    const float* logits;  // [experts]
    int function;
    float largest, total;  // of softmax: the largest logit, and the sum of the exponentials

    __device__ float score(int expert) const {
        const float logit = logits[expert];
        if (function == SQRTSOFTPLUS) return sqrtf(fmaxf(logit, 0.0f) + log1pf(expf(-fabsf(logit))));
        const float exponential = expf(function == SIGMOID ? -logit : logit - largest);
        return function == SIGMOID ? 1.0f / (1.0f + exponential) : exponential / total;
    }
};

__device__ __forceinline__ Gate gate_of(const float* logits, int experts, int function) {
    Gate gate = {logits, function, 0.0f, 1.0f};
    if (function == SQRTSOFTPLUS || function == SIGMOID) return gate;
    const int lane = threadIdx.x % WARP;
    float largest = __int_as_float(0xff800000), total = 0.0f;
    for (int expert = lane; expert < experts; expert += WARP) largest = fmaxf(largest, logits[expert]);
    gate.largest = warp_max(largest);
    for (int expert = lane; expert < experts; expert += WARP) total += expf(logits[expert] - gate.largest);
    gate.total = warp_sum(total);
    return gate;
}

// An integer that orders as the float does, with NaN before everything. The sum of a score and a bias is never -0.
__device__ __forceinline__ unsigned rank_of(float value) {
    if (value != value) return 0;
    const unsigned bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The first in the order of falling ranks, then rising numbers, among those behind `last`. Both with the rank in the
// upper half and the number's complement in the lower, so that the first is the largest.
__device__ __forceinline__ unsigned long long first_behind(
    unsigned long long last, const unsigned* ranks, int experts) {
    unsigned long long first = 0;
    for (int expert = threadIdx.x % WARP; expert < experts; expert += WARP) {
        const unsigned long long key = (unsigned long long)ranks[expert] << 32 | ~(unsigned)expert;
        if (key < last && key > first) first = key;
    }
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const unsigned long long other = __shfl_xor_sync(ALL_LANES, first, distance);
        if (other > first) first = other;
    }
    return first;
}

// The weights [k] of the experts at `indices` [k].
__device__ __forceinline__ void weigh(
    const Gate& gate, const long long* indices, float* weights, int experts, int k, float scale,
    unsigned long long* status) {
    const int lane = threadIdx.x % WARP;
    float sum = 0.0f;
    for (int visit = lane; visit < k; visit += WARP) {
        const bool exists = is_within(indices[visit], experts, NO_SUCH_EXPERT, status);
        weights[visit] = exists ? gate.score((int)indices[visit]) : 0.0f;
        sum += weights[visit];
    }
    const bool shares = gate.function == SQRTSOFTPLUS || gate.function == SIGMOID;
    const float total = shares ? warp_sum(sum) : 1.0f;
    for (int visit = lane; visit < k; visit += WARP) weights[visit] = weights[visit] / total * scale;
}

// The visits of a single token in groups of one each, as grouping.cu makes them: order [k], tiles [k, 3].
__device__ __forceinline__ void group_single(const long long* indices, int* order, int* tiles, int experts, int k) {
    for (int visit = threadIdx.x; visit < k; visit += WARP) {
        const long long expert = indices[visit];  // this lane has written it
        order[visit] = visit;
        tiles[3 * visit] = static_cast<int>(expert);
        tiles[3 * visit + 1] = visit;
        tiles[3 * visit + 2] = expert >= 0 && expert < experts;
    }
}

// logits [tokens, experts]; bias [experts]; memory [tokens, experts], or null where they are few;
// indices, weights [tokens, k]; order, tiles: as in group_single, or null.
extern "C" __global__ void __launch_bounds__(128)
    route(const float* logits, const float* bias, unsigned* memory, long long* indices, float* weights, int* order,
          int* tiles, int tokens, int experts, int k, int function, float scale, unsigned long long* status) {
    __shared__ unsigned shared[WARPS][SHARED_EXPERTS];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const long long token = (long long)blockIdx.x * WARPS + warp;
    if (token >= tokens) return;
    unsigned* ranks = memory ? memory + token * experts : shared[warp];
    const Gate gate = gate_of(logits + token * experts, experts, function);
    for (int expert = lane; expert < experts; expert += WARP)
        ranks[expert] = rank_of(gate.score(expert) + bias[expert]);  // each lane reads what it wrote itself
    unsigned long long last = ~0ull;
    for (int visit = 0; visit < k; ++visit) {
        last = first_behind(last, ranks, experts);
        if (visit % WARP == lane) indices[token * k + visit] = ~(unsigned)last;  // the lane that will weigh it
    }
    weigh(gate, indices + token * k, weights + token * k, experts, k, scale, status);
    if (order) group_single(indices, order, tiles, experts, k);
}

// logits [tokens, experts]; indices, weights [tokens, k]; order, tiles: as in group_single, or null.
extern "C" __global__ void __launch_bounds__(128)
    route_by_id(const float* logits, const long long* indices, float* weights, int* order, int* tiles, int tokens,
                int experts, int k, int function, float scale, unsigned long long* status) {
    const long long token = (long long)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (token >= tokens) return;
    const Gate gate = gate_of(logits + token * experts, experts, function);
    weigh(gate, indices + token * k, weights + token * k, experts, k, scale, status);
    if (order) group_single(indices, order, tiles, experts, k);
}

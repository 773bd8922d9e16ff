#pragma once
// A softmax taken piece by piece: numbers relative to the largest logit so far shrink as a larger one appears.
#include "formats.cuh"

// e^(logit − largest); 0 for a logit of −∞, also where nothing is larger.
__device__ __forceinline__ float share_of(float logit, float largest) {
    return logit == -infinity() ? 0 : expf(logit - largest);
}

// The sum of e^(logit − largest) over some logits: none, to begin with.
struct Softmax {
    float largest = -infinity(), total = 0;

    // Join the softmax of other logits: by which factors the sums over values of these and of those count from now on.
    __device__ __forceinline__ float2 join(const Softmax& other) {
        const float most = larger(largest, other.largest);
        const float2 factors = make_float2(share_of(largest, most), share_of(other.largest, most));
        total = fmaf(total, factors.x, __fmul_rn(other.total, factors.y));
        largest = most;
        return factors;
    }
};

__device__ __forceinline__ float joined(float these, float those, const float2& factors) {
    return fmaf(these, factors.x, __fmul_rn(those, factors.y));
}

// The softmax of a head's sink alone, which has a share and no value.
__device__ __forceinline__ Softmax of_sink(float sink) {
    Softmax softmax;
    softmax.largest = sink;
    softmax.total = share_of(sink, sink);
    return softmax;
}

#pragma once
// What comes between the two products of an expert.

// weight · silu(min(gate, limit)) · clip(up, −limit, limit); a NaN stays one.
__device__ __forceinline__ float weighted_swiglu(float gate, float up, float weight, float limit) {
    gate = gate > limit ? limit : gate;
    up = up < -limit ? -limit : up;
    up = up > limit ? limit : up;
    return weight * (gate * (1.0f / (1.0f + expf(-gate))) * up);
}

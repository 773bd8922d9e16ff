// Rows of activations for products: as they are given, or what comes between the two products of an expert.
#include "activations.cuh"
#include "swiglu.cuh"

// x [rows, width], one block per row; pieces and units as in activations.cuh.
extern "C" __global__ void __launch_bounds__(256)
    prepare_rows(const float* x, unsigned short* pieces, float* units, int width, bool rounds) {
    const float* row = x + (long long)blockIdx.x * width;
    write_pieces(width, rounds, [=](int i) { return row[i]; }, pieces, units, blockIdx.x, gridDim.x);
}

// gates_and_ups [2, slots, width]; weights [slots], or null for 1 each; one block per slot.
extern "C" __global__ void __launch_bounds__(256)
    prepare_hidden(const float* gates_and_ups, const float* weights, unsigned short* pieces, float* units, int width,
                   bool rounds, float limit) {
    const float* gate = gates_and_ups + (long long)blockIdx.x * width;
    const float* up = gate + (long long)gridDim.x * width;
    const float weight = weights ? weights[blockIdx.x] : 1;
    const auto hidden = [=](int i) { return weighted_swiglu(gate[i], up[i], weight, limit); };
    write_pieces(width, rounds, hidden, pieces, units, blockIdx.x, gridDim.x);
}

// RMSNorm, with a learned weight and without: mirrors dsv4/ops/norm.py. One block per row.
#include "warp.cuh"

// x, out [rows, width]; weight [width], or null for none.
extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float* x, const float* weight, float* out, int width, float eps) {
    const float* row = x + (long long)blockIdx.x * width;
    float squares = 0;
    for (int i = threadIdx.x; i < width; i += blockDim.x) squares += row[i] * row[i];
    const float root = sqrtf(block_sum(squares) / width + eps);
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        const float scaled = row[i] / root;
        out[(long long)blockIdx.x * width + i] = weight ? scaled * weight[i] : scaled;
    }
}

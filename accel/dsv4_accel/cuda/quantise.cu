// Rounding activations to a small format and back: mirrors dsv4/ops/quantise.py. A few lanes of a warp share a block of
// channels, which has one scale.
#include "formats.cuh"
#include "warp.cuh"

// x, out [rows, width]; a thread's block of channels is the one that its run of `lanes` threads, a power of two, takes.
template <class Format>
__device__ __forceinline__ void fake_quant(const float* x, float* out, long long rows, int width, int block, int lanes) {
    const int blocks_per_row = (width + block - 1) / block, lane = threadIdx.x % lanes;
    const long long number = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / lanes;
    const bool exists = number < rows * blocks_per_row;
    const long long row = exists ? number / blocks_per_row : 0;
    const int first = exists ? static_cast<int>(number % blocks_per_row) * block : 0;
    const int count = exists ? min(block, width - first) : 0;
    const float* from = x + row * width + first;

    float largest = 0;
    for (int i = lane; i < count; i += lanes) {
        const float magnitude = fabsf(from[i]);
        largest = fmaxf(largest, magnitude <= LARGEST_FLOAT ? magnitude : infinity());  // a NaN, too
    }
    for (int distance = lanes / 2; distance > 0; distance /= 2)
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, distance));

    const bool is_bad = largest > LARGEST_FLOAT;
    const int power = is_bad ? 0 : scale_power<Format>(largest);
    const float scale = power_of_two(power), inverse = power_of_two(-power);
    for (int i = lane; i < count; i += lanes) {
        const float number = from[i], rounded = Format::nearest(fabsf(number) * inverse);
        out[row * width + first + i] = is_bad ? not_a_number() : copysignf(rounded, number) * scale;
    }
}

extern "C" __global__ void __launch_bounds__(256)
    fake_quant_fp8(const float* x, float* out, long long rows, int width, int block, int lanes) {
    fake_quant<Fp8>(x, out, rows, width, block, lanes);
}

extern "C" __global__ void __launch_bounds__(256)
    fake_quant_fp4(const float* x, float* out, long long rows, int width, int block, int lanes) {
    fake_quant<Fp4>(x, out, rows, width, block, lanes);
}

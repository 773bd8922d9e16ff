// The Walsh–Hadamard rotation in shared memory: mirrors dsv4/ops/hadamard.py. log2(width) rounds of sums and differences.
#include "shared.cuh"

// x, out [rows, width], width a power of two; a block takes rows_per_block rows. Shared memory: those rows.
extern "C" __global__ void __launch_bounds__(256)
    hadamard(const float* x, float* out, long long rows, int width, int rows_per_block, float factor) {
    float* numbers = dynamic_shared<float>();
    const long long first = static_cast<long long>(blockIdx.x) * rows_per_block;
    const long long left = (rows - first) * width;
    const int count = left < rows_per_block * width ? static_cast<int>(left) : rows_per_block * width;
    for (int i = threadIdx.x; i < count; i += blockDim.x) numbers[i] = x[first * width + i];
    for (int distance = 1; distance < width; distance *= 2) {
        __syncthreads();
        for (int pair = threadIdx.x; pair < count / 2; pair += blockDim.x) {
            const int low = pair / distance * 2 * distance + pair % distance, high = low + distance;
            const float sum = numbers[low] + numbers[high];
            numbers[high] = numbers[low] - numbers[high];
            numbers[low] = sum;
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) out[first * width + i] = numbers[i] * factor;
}

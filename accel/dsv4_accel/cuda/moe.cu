// What experts compute last: the sum of a token's visits.

// parts [size / width, k, width]; out [size / width, width]: the sum over the visits in their order.
extern "C" __global__ void __launch_bounds__(256)
    add_visits(const float* parts, float* out, long long size, int width, int k) {
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const float* part = parts + i / width * k * width + i % width;
    float sum = part[0];
    for (int visit = 1; visit < k; ++visit) sum += part[(long long)visit * width];
    out[i] = sum;
}

// Rows of a cache to bytes and back: mirrors `pack` and `unpacked` of dsv4/ops/packed_rows.py. A warp takes a block of
// codes, which has one scale.
#include "packed.cuh"
#include "warp.cuh"

// The largest magnitude of some numbers, for all lanes of the warp; infinity where one is not finite.
__device__ __forceinline__ float largest_of(const float* numbers, int count) {
    float largest = 0;
    for (int i = threadIdx.x % WARP; i < count; i += WARP) largest = fmaxf(largest, magnitude_of(numbers[i]));
    return warp_max(largest);
}

// A block of numbers as codes with a power of two for a scale. A block that is not finite has the scale NaN and codes of 0.
template <class Format>
struct PowerBlock {
    bool is_finite;
    int power;

    __device__ __forceinline__ explicit PowerBlock(float largest)
        : is_finite(largest <= LARGEST_FLOAT), power(is_finite ? scale_power<Format>(largest) : 128) {}
    __device__ __forceinline__ unsigned scale_byte() const { return power + 127; }
    __device__ __forceinline__ unsigned code(float number) const {
        if (!is_finite) return 0;
        const unsigned sign = __float_as_uint(number) >> 31;
        return sign << (Format::bits - 1) | Format::code(Format::nearest(fabsf(number) * power_of_two(-power)));
    }
};

// The same with a scale of E4M3, which is rounded to nearest: where that is down, the largest number is cut to 6.
struct GroupOf16 {
    static constexpr float floor = 6 * 0x1p-9f;  // NVFP4_FLOOR
    bool is_finite;
    unsigned scale_code;
    float scale;

    __device__ __forceinline__ explicit GroupOf16(float largest) : is_finite(largest <= LARGEST_FLOAT) {
        const float wanted = fminf(__fdiv_rn(fmaxf(largest, floor), 6), 448);
        scale_code = is_finite ? Fp8::code(Fp8::nearest(wanted)) : 0x7fu;
        scale = Fp8::value(scale_code);
    }
    __device__ __forceinline__ unsigned scale_byte() const { return scale_code; }
    __device__ __forceinline__ unsigned code(float number) const {
        if (!is_finite) return 0;
        const unsigned sign = __float_as_uint(number) >> 31;
        return sign << 3 | Fp4::code(Fp4::nearest(fminf(__fdiv_rn(fabsf(number), scale), 6)));
    }
};

// One row of `format.channels()` numbers by a block of whole warps.
template <class Block, bool IN_PAIRS>
__device__ __forceinline__ void pack_row(const float* row, unsigned char* packed, const RowFormat& format) {
    const int lane = threadIdx.x % WARP, warps = blockDim.x / WARP;
    unsigned char *behind = packed + format.code_bytes(), *scales = behind + 2 * format.rotated;
    for (int number = threadIdx.x / WARP; number * format.block < format.codes; number += warps) {
        const int first = number * format.block, count = min(format.block, format.codes - first);
        const float* numbers = row + first;
        const Block block(largest_of(numbers, count));
        if (lane == 0) scales[number] = static_cast<unsigned char>(block.scale_byte());
        if constexpr (IN_PAIRS)
            for (int pair = lane; pair < count / 2; pair += WARP)
                packed[first / 2 + pair] =
                    static_cast<unsigned char>(block.code(numbers[2 * pair]) | block.code(numbers[2 * pair + 1]) << 4);
        else
            for (int i = lane; i < count; i += WARP) packed[first + i] = static_cast<unsigned char>(block.code(numbers[i]));
    }
    for (int i = threadIdx.x; i < format.rotated; i += blockDim.x) {
        const unsigned bits = nearest_bfloat(row[format.codes + i]);
        behind[2 * i] = static_cast<unsigned char>(bits);
        behind[2 * i + 1] = static_cast<unsigned char>(bits >> 8);
    }
}

// rows [blocks, codes + rotated] -> packed [blocks, width]; one block per row. So bounded, it needs no local memory.
extern "C" __global__ void __launch_bounds__(128, 4)
    pack_rows(const float* rows, unsigned char* packed, int kind, int codes, int rotated, int block) {
    const RowFormat format = {kind, codes, rotated, block};
    const float* row = rows + static_cast<long long>(blockIdx.x) * format.channels();
    unsigned char* target = packed + static_cast<long long>(blockIdx.x) * format.width(0);
    if (kind == FP8_ROWS) pack_row<PowerBlock<Fp8>, false>(row, target, format);
    else if (kind == FP4_ROWS) pack_row<PowerBlock<Fp4>, true>(row, target, format);
    else pack_row<GroupOf16, true>(row, target, format);
}

// packed [batch, count, width], `step` bytes from one sequence to the next -> numbers [batch, count, codes + rotated].
// Blocks: rows of all sequences.
extern "C" __global__ void __launch_bounds__(128)
    unpack_rows(
        const unsigned char* packed, float* numbers, int count, long long step, int kind, int codes, int rotated, int block) {
    const RowFormat format = {kind, codes, rotated, block};
    const unsigned char* row = packed + blockIdx.x / count * step + static_cast<long long>(blockIdx.x % count) * format.width(0);
    float* target = numbers + static_cast<long long>(blockIdx.x) * format.channels();
    for (int i = threadIdx.x; i < format.channels(); i += blockDim.x) target[i] = number_at(row, format, i);
}

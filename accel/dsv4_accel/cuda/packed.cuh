#pragma once
// Rows of a cache as bytes, read number by number: mirrors dsv4/ops/packed_rows.py. Each number has the bits that the
// reference gives it: a code's value times the scale of its block.
#include "formats.cuh"
#include "vectors.cuh"

// How rows are stored; the numbers are those of packed_rows.py. FLOATS: as they are.
constexpr int FLOATS = 0, FP8_ROWS = 1, FP4_ROWS = 2, NVFP4_ROWS = 3;

// Channels that are codes, those behind them as bfloat16, and codes that share a scale, a multiple of 4.
struct RowFormat {
    int kind, codes, rotated, block;

    __device__ __forceinline__ int channels() const { return codes + rotated; }
    __device__ __forceinline__ int code_bytes() const { return kind == FP8_ROWS ? codes : codes / 2; }
    // The bytes of a row; `vectors` is how many fours a row of floats has.
    __device__ __forceinline__ int width(int vectors) const {
        return kind == FLOATS ? 16 * vectors : code_bytes() + 2 * rotated + (codes + block - 1) / block;
    }
    __device__ __forceinline__ float scale(const unsigned char* row, int number) const {
        const unsigned byte = row[code_bytes() + 2 * rotated + number];
        if (kind == NVFP4_ROWS) return Fp8::value(byte);
        return byte == 255 ? not_a_number() : __uint_as_float(byte == 0 ? 0x400000u : byte << 23);  // 2^(byte − 127)
    }
};

// Four bytes from any place on, by loads of whole words; of the words that hold one of them, nothing else is read.
__device__ __forceinline__ unsigned word_at(const unsigned char* place) {
    const unsigned skipped = reinterpret_cast<unsigned long long>(place) % 4;
    const unsigned* words = reinterpret_cast<const unsigned*>(place - skipped);
    if (skipped == 0) return words[0];
    return words[0] >> 8 * skipped | words[1] << (32 - 8 * skipped);
}

// One number of a packed row; 0 behind the last one.
__device__ __forceinline__ float number_at(const unsigned char* row, const RowFormat& format, int channel) {
    if (channel >= format.channels()) return 0;
    if (channel >= format.codes) {
        const unsigned char* place = row + format.code_bytes() + 2 * (channel - format.codes);
        return bfloat_as_float(place[0] | place[1] << 8);
    }
    const float scale = format.scale(row, channel / format.block);
    if (format.kind == FP8_ROWS) return Fp8::value(row[channel]) * scale;
    return Fp4::value(row[channel / 2] >> channel % 2 * 4) * scale;
}

// Four numbers of a packed row from a channel on, a multiple of 4.
__device__ __forceinline__ float4 numbers_at(const unsigned char* row, const RowFormat& format, int channel) {
    if (channel + 4 > format.codes)
        return make_float4(
            number_at(row, format, channel), number_at(row, format, channel + 1), number_at(row, format, channel + 2),
            number_at(row, format, channel + 3));
    const float scale = format.scale(row, channel / format.block);
    if (format.kind == FP8_ROWS) {
        const unsigned codes = word_at(row + channel);
        return make_float4(
            Fp8::value(codes) * scale, Fp8::value(codes >> 8) * scale, Fp8::value(codes >> 16) * scale,
            Fp8::value(codes >> 24) * scale);
    }
    const unsigned codes = row[channel / 2] | row[channel / 2 + 1] << 8;
    return make_float4(
        Fp4::value(codes) * scale, Fp4::value(codes >> 4) * scale, Fp4::value(codes >> 8) * scale,
        Fp4::value(codes >> 12) * scale);
}

#pragma once
// Products of small matrices of bfloat16, and arithmetic with two bfloat16 in one word, the first in its lower half.
#include "formats.cuh"
#include "warp.cuh"

// The products of two pairs, exact unless one is below the smallest normal number.
__device__ __forceinline__ unsigned multiply_pairs(unsigned a, unsigned b) {
#ifdef __CUDACC__
    unsigned product;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000u));  // −0 changes no product
    return product;
#else
    unsigned product = 0;
    for (int half = 0; half < 32; half += 16) {
        const float exact = bfloat_as_float(a >> half & 0xffff) * bfloat_as_float(b >> half & 0xffff);
        const unsigned bits = __float_as_uint(exact);
        const unsigned nearest = exact == exact ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff;
        product |= nearest << half;
    }
    return product;
#endif
}

// sum += a @ b, over the threads of a warp: a [16, 16] of bfloat16, b [16, 8] of bfloat16, sum [16, 8] of float.
//
// With group = lane / 4 and quarter = lane % 4, a lane holds of rows `group` and `group + 8` of a the columns 2·quarter
// and the next (a[0], a[1]) and those 8 further (a[2], a[3]); these as rows of column `group` of b (b0, b1); and of
// rows `group` and `group + 8` of sum the columns 2·quarter and the next (sum[0] and sum[1], sum[2] and sum[3]).
__device__ __forceinline__ void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    host::multiply_add(sum, a, b0, b1);
#endif
}

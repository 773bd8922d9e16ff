// What tensor cores do, for mma.cuh: a product of small matrices of bfloat16 by the threads of a warp.
#pragma once

namespace host {

typedef float Row __attribute__((vector_size(32)));

inline float bfloat(unsigned bits) { return with_bits_of<float>(bits << 16); }

// sum += a @ b for the whole warp, once all lanes have given their parts; which parts those are is told in mma.cuh.
inline void multiply_add(SmallProduct& all) {
    float a[16][16];
    Row b[16];
    for (int lane = 0; lane < WARP_SIZE; ++lane)
        for (int half = 0; half < 2; ++half) {
            const int group = lane / 4, column = 2 * (lane % 4) + half;
            for (int word = 0; word < 4; ++word)
                a[group + word % 2 * 8][column + word / 2 * 8] = bfloat(all.a[lane][word] >> 16 * half & 0xffff);
            for (int word = 0; word < 2; ++word) b[column + word * 8][group] = bfloat(all.b[lane][word] >> 16 * half & 0xffff);
        }
    for (int row = 0; row < 16; ++row) {
        Row sums;
        for (int i = 0; i < 8; ++i) sums[i] = all.sum[row % 8 * 4 + i / 2][row / 8 * 2 + i % 2];
        for (int k = 0; k < 16; ++k) sums += a[row][k] * b[k];
        for (int i = 0; i < 8; ++i) all.sum[row % 8 * 4 + i / 2][row / 8 * 2 + i % 2] = sums[i];
    }
}

// One lane's part. The lane that comes last does the work.
inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    SmallProduct& all = small_products[current / WARP_SIZE];
    const unsigned lane = current % WARP_SIZE, b[2] = {b0, b1};
    std::memcpy(all.a[lane], a, sizeof a);
    std::memcpy(all.b[lane], b, sizeof b);
    all.sum[lane] = sum;
    if (++all.given == WARP_SIZE) {
        all.given = 0;
        multiply_add(all);
    }
    wait(State::at_warp);
}

}  // namespace host

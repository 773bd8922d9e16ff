// What tensor cores do, for mma.cuh: a product of small matrices of bfloat16 by the threads of a warp.
//
// Products are exact. Of them and the sum so far the largest magnitude is found, every other one is cut off two bits below
// the largest one's last, they are added exactly, and the total is cut to a float. This is one model of tensor cores, in the
// manner of what Fasi et al. (2021) and Khattak and Mikaitis (2025) measured; real ones may keep more bits or take fewer terms.
#pragma once

namespace host {

constexpr int DEPTH = 16, COLUMNS = 8;
constexpr int BITS_BEHIND_LARGEST = 25;  // 23 of a float and two more

// Vectors of the machine's own width, where the compiler can choose at run time.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define HOST_WIDE_VECTORS __attribute__((target_clones("avx2", "default")))
#else
#define HOST_WIDE_VECTORS
#endif

typedef double Four __attribute__((vector_size(32)));
typedef std::int64_t FourLongs __attribute__((vector_size(32)));
typedef std::int32_t FourInts __attribute__((vector_size(16)));

// A number cut to a float, towards zero. One above all floats is infinite.
inline float cut_to_float(double number) {
    const float nearest = static_cast<float>(number);
    const bool is_cut = std::fabs(nearest) <= std::fabs(number) || std::isinf(nearest);
    return is_cut ? nearest : with_bits_of<float>(with_bits_of<unsigned>(nearest) - 1);
}

// sums += row @ b: one row of a with all columns of b, four at a time.
HOST_WIDE_VECTORS static void add_row(float (&sums)[COLUMNS], const double (&row)[DEPTH], const Four (&b)[DEPTH][COLUMNS / 4]) {
    for (int four = 0; four < COLUMNS / 4; ++four) {
        float* own = sums + 4 * four;
        Four terms[DEPTH + 1], plain = {}, largest = {0x1p-300, 0x1p-300, 0x1p-300, 0x1p-300};
        for (int k = 0; k < DEPTH; ++k) terms[k] = row[k] * b[k][four];
        terms[DEPTH] = Four{own[0], own[1], own[2], own[3]};
        for (const Four& term : terms) {
            const Four magnitude = (Four)((FourLongs)term & INT64_MAX);
            largest = magnitude > largest ? magnitude : largest;
            plain += term;
        }
        const FourLongs exponent = (FourLongs)largest >> 52;
        const Four unit = (Four)((exponent - BITS_BEHIND_LARGEST) << 52);
        const Four inverse = (Four)((2046 + BITS_BEHIND_LARGEST - exponent) << 52);
        FourInts total = {};
        for (const Four& term : terms) total += __builtin_convertvector(term * inverse, FourInts);
        for (int i = 0; i < 4; ++i)  // infinities and NaN are as in any sum
            own[i] = std::isfinite(plain[i]) ? cut_to_float(total[i] * unit[i]) : static_cast<float>(plain[i]);
    }
}

// The number that half a word holds.
inline double bfloat(unsigned word, int half) { return with_bits_of<float>((word >> 16 * half) << 16); }

// sum += a @ b for the whole warp, once all lanes have given their parts; which parts those are is told in mma.cuh.
inline void multiply_add(SmallProduct& all) {
    double a[DEPTH][DEPTH];
    Four b[DEPTH][COLUMNS / 4];
    for (int lane = 0; lane < WARP_SIZE; ++lane)
        for (int half = 0; half < 2; ++half) {
            const int group = lane / 4, column = 2 * (lane % 4) + half;
            for (int word = 0; word < 4; ++word)
                a[group + word % 2 * 8][column + word / 2 * 8] = bfloat(all.a[lane][word], half);
            for (int word = 0; word < 2; ++word)
                b[column + word * 8][group / 4][group % 4] = bfloat(all.b[lane][word], half);
        }
    for (int row = 0; row < DEPTH; ++row) {
        float sums[COLUMNS];
        for (int i = 0; i < COLUMNS; ++i) sums[i] = all.sum[row % 8 * 4 + i / 2][row / 8 * 2 + i % 2];
        add_row(sums, a[row], b);
        for (int i = 0; i < COLUMNS; ++i) all.sum[row % 8 * 4 + i / 2][row / 8 * 2 + i % 2] = sums[i];
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

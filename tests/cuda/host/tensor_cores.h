// What tensor cores do, for mma.cuh: a product of small matrices of bfloat16 by the threads of a warp.
//
// Products are exact. Of them and the sum so far the largest magnitude is found, every other one is cut off two bits below
// the largest one's last, they are added exactly, and the total is cut to a float. So measured by Fasi et al. (2021) and by
// Khattak and Mikaitis (2025), the latter for the GPUs with the most terms in one sum, of which these are the numbers.
#pragma once

namespace host {

constexpr int DEPTH = 16, COLUMNS = 8;
constexpr int BITS_BEHIND_LARGEST = 25;  // 23 of a float and two more

// The machine's widest vectors, where the compiler can choose at run time.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define HOST_WIDE_VECTORS __attribute__((target_clones("avx2", "default"), optimize("O3")))
#else
#define HOST_WIDE_VECTORS
#endif

inline double double_of_bits(std::uint64_t bits) { return with_bits_of<double>(bits); }

// A number cut to a float, towards zero. One above all floats is infinite.
inline float cut_to_float(double number) {
    const float nearest = static_cast<float>(number);
    const bool is_cut = std::fabs(nearest) <= std::fabs(number) || std::isinf(nearest);
    return is_cut ? nearest : with_bits_of<float>(with_bits_of<unsigned>(nearest) - 1);
}

// sums += row @ b: one row of a with all columns of b.
HOST_WIDE_VECTORS static void add_row(float (&sums)[COLUMNS], const double (&row)[DEPTH], const double (&b)[DEPTH][COLUMNS]) {
    double terms[DEPTH + 1][COLUMNS], plain[COLUMNS] = {}, largest[COLUMNS], unit[COLUMNS], inverse[COLUMNS];
    for (int i = 0; i < COLUMNS; ++i) terms[DEPTH][i] = sums[i], largest[i] = 0x1p-300;
    for (int k = 0; k < DEPTH; ++k)
        for (int i = 0; i < COLUMNS; ++i) terms[k][i] = row[k] * b[k][i];
    for (int k = 0; k <= DEPTH; ++k)
        for (int i = 0; i < COLUMNS; ++i) {
            const double magnitude = std::fabs(terms[k][i]);
            largest[i] = magnitude > largest[i] ? magnitude : largest[i];
            plain[i] += terms[k][i];
        }
    for (int i = 0; i < COLUMNS; ++i) {
        const std::uint64_t exponent = with_bits_of<std::uint64_t>(largest[i]) >> 52;
        unit[i] = double_of_bits((exponent - BITS_BEHIND_LARGEST) << 52);
        inverse[i] = double_of_bits((2046 + BITS_BEHIND_LARGEST - exponent) << 52);
    }
    int total[COLUMNS] = {};
    for (int k = 0; k <= DEPTH; ++k)
        for (int i = 0; i < COLUMNS; ++i) total[i] += static_cast<int>(terms[k][i] * inverse[i]);
    for (int i = 0; i < COLUMNS; ++i)  // infinities and NaN are as in any sum
        sums[i] = std::isfinite(plain[i]) ? cut_to_float(total[i] * unit[i]) : static_cast<float>(plain[i]);
}

// The number that half a word holds.
inline double bfloat(unsigned word, int half) { return with_bits_of<float>((word >> 16 * half) << 16); }

// sum += a @ b for the whole warp, once all lanes have given their parts; which parts those are is told in mma.cuh.
inline void multiply_add(SmallProduct& all) {
    double a[DEPTH][DEPTH], b[DEPTH][COLUMNS];
    for (int lane = 0; lane < WARP_SIZE; ++lane)
        for (int half = 0; half < 2; ++half) {
            const int group = lane / 4, column = 2 * (lane % 4) + half;
            for (int word = 0; word < 4; ++word)
                a[group + word % 2 * 8][column + word / 2 * 8] = bfloat(all.a[lane][word], half);
            for (int word = 0; word < 2; ++word) b[column + word * 8][group] = bfloat(all.b[lane][word], half);
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

// The best entries of each query: mirrors top_k of dsv4/ops/indexer.py.
//
// A candidate is one word of 64 bits: a score as an integer of the same order, and behind it the complement of the entry
// number, so that a larger word is a better candidate and no two are equal. Each block finds the k largest of its
// candidates by counting digits, the highest first, and sorts them; a second launch does the same with what the blocks
// of a row have found.
#include "formats.cuh"
#include "shared.cuh"

typedef unsigned long long Candidate;

constexpr int BINS = 256, DIGIT = 8;

// NaN comes last, as in NumPy; −0 equals 0.
__device__ __forceinline__ unsigned ordered(float score) {
    if (score != score) return 0;
    const unsigned bits = __float_as_uint(score + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The entries of a run of scores. An entry that is not visible stands where −∞ does, behind all visible ones.
struct Scores {
    const float* scores;
    long long first, visible;
    __device__ __forceinline__ Candidate operator()(int number) const {
        const long long entry = first + number;
        const unsigned order = ordered(entry < visible ? scores[entry] : -infinity());
        return static_cast<Candidate>(order) << 32 | ~static_cast<unsigned>(entry);
    }
};

struct Found {
    const Candidate* candidates;
    __device__ __forceinline__ Candidate operator()(int number) const { return candidates[number]; }
};

// The smallest of the k largest of `count` candidates; 1 <= k <= count.
template <class Candidates>
__device__ __forceinline__ Candidate threshold(const Candidates& candidates, int count, int k) {
    __shared__ int counts[BINS];
    __shared__ int digit, left, whole;
    Candidate prefix = 0;
    for (int shift = 64 - DIGIT; shift >= 0; shift -= DIGIT) {
        for (int bin = threadIdx.x; bin < BINS; bin += blockDim.x) counts[bin] = 0;
        __syncthreads();
        const int known = shift + DIGIT;
        for (int i = threadIdx.x; i < count; i += blockDim.x) {
            const Candidate candidate = candidates(i);
            if (known == 64 || candidate >> known == prefix >> known) atomicAdd(&counts[candidate >> shift & (BINS - 1)], 1);
        }
        for (int distance = 1; distance < BINS; distance *= 2) {  // from counts to how many are in this bin or above it
            __syncthreads();
            int more = 0;
            const int bin = threadIdx.x;
            if (bin + distance < BINS) more = counts[bin + distance];
            __syncthreads();
            if (bin < BINS) counts[bin] += more;
        }
        __syncthreads();
        if (threadIdx.x < BINS) {
            const int bin = threadIdx.x, here = counts[bin], above = bin + 1 < BINS ? counts[bin + 1] : 0;
            if (above < k && k <= here) digit = bin, left = k - above, whole = here - above == k - above;
        }
        __syncthreads();
        prefix |= static_cast<Candidate>(digit) << shift;
        k = left;
        if (whole) break;
    }
    return prefix;
}

// The `room` numbers in falling order; room is a power of two.
__device__ __forceinline__ void sort_falling(Candidate* chosen, int room) {
    for (int run = 2; run <= room; run *= 2)
        for (int distance = run / 2; distance > 0; distance /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < room / 2; pair += blockDim.x) {
                const int low = pair / distance * 2 * distance + pair % distance, high = low + distance;
                const bool falls = (low & run) == 0;
                const Candidate a = chosen[low], b = chosen[high];
                if ((a < b) == falls) chosen[low] = b, chosen[high] = a;
            }
        }
    __syncthreads();
}

// The k largest candidates in falling order, into shared memory with `room` places, a power of two of at least k.
template <class Candidates>
__device__ __forceinline__ void choose(const Candidates& candidates, int count, int k, Candidate* chosen, int room) {
    __shared__ int filled;
    const Candidate least = threshold(candidates, count, k);
    if (threadIdx.x == 0) filled = 0;
    for (int i = threadIdx.x; i < room; i += blockDim.x) chosen[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        const Candidate candidate = candidates(i);
        if (candidate >= least) chosen[atomicAdd(&filled, 1)] = candidate;
    }
    sort_falling(chosen, room);
}

// scores [rows, count], visible [rows] -> found [rows, gridDim.y, k]: the best of each run of `run` entries, 0 where it
// has fewer than k.
extern "C" __global__ void __launch_bounds__(512)
    choose_in_runs(const float* scores, const long long* visible, unsigned long long* found, long long count, int run, int k,
                   int room) {
    Candidate* chosen = dynamic_shared<Candidate>();
    const long long row = blockIdx.x, first = static_cast<long long>(blockIdx.y) * run;
    const int here = count - first < run ? static_cast<int>(count - first) : run, most = min(k, here);
    choose(Scores{scores + row * count, first, visible[row]}, here, most, chosen, room);
    for (int i = threadIdx.x; i < k; i += blockDim.x) found[(row * gridDim.y + blockIdx.y) * k + i] = i < most ? chosen[i] : 0;
}

// found [rows, candidates], visible [rows] -> entries [rows, k]: entry numbers, −1 for one that is not visible.
extern "C" __global__ void __launch_bounds__(512)
    choose_among_found(const unsigned long long* found, const long long* visible, long long* entries, int candidates, int k,
                       int room) {
    Candidate* chosen = dynamic_shared<Candidate>();
    const long long row = blockIdx.x;
    choose(Found{found + row * candidates}, candidates, k, chosen, room);
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        const long long entry = ~static_cast<unsigned>(chosen[i]);
        entries[row * k + i] = entry < visible[row] ? entry : -1;
    }
}

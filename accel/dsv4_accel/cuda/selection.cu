// The best entries of each query: mirrors top_k of dsv4/ops/indexer.py.
//
// A candidate is one word: a score as an integer of the same order, and behind it the complement of the entry number, so
// that of two candidates the larger one is better, and no two are equal. A block holds a run of candidates in registers
// and finds the k largest by counting digits. Where a query has several runs, what they leave is gone through in the
// same way, until one run is left, whose best are sorted.
#include "formats.cuh"
#include "prefix.cuh"
#include "shared.cuh"

typedef unsigned long long Candidate;  // 0 stands for none

constexpr int OWN = 16;  // candidates of a thread
constexpr int DIGIT = 8, BINS = 1 << DIGIT, LANE_BINS = BINS / WARP;

// NaN comes last, as in NumPy; −0 equals 0.
__device__ __forceinline__ unsigned ordered(float score) {
    if (score != score) return 0;
    const unsigned bits = __float_as_uint(score + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// An entry of a query that sees `visible` ones. Those that it does not see stand where −∞ does, as in NumPy; as many as
// are chosen are enough of them.
__device__ __forceinline__ Candidate candidate_of(const float* scores, long long entry, long long visible, int k) {
    if (entry >= visible + k) return 0;
    return static_cast<Candidate>(ordered(entry < visible ? scores[entry] : -infinity())) << 32 | ~static_cast<unsigned>(entry);
}

// The smallest and the largest candidate of the block.
__device__ __forceinline__ void find_extremes(const Candidate (&own)[OWN], Candidate& smallest, Candidate& largest) {
    __shared__ Candidate extremes[2];
    if (threadIdx.x == 0) extremes[0] = ~0ull, extremes[1] = 0;
    __syncthreads();
    Candidate low = ~0ull, high = 0;
#pragma unroll
    for (int i = 0; i < OWN; ++i)
        if (own[i]) low = min(low, own[i]), high = max(high, own[i]);
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        low = min(low, __shfl_xor_sync(ALL_LANES, low, distance));
        high = max(high, __shfl_xor_sync(ALL_LANES, high, distance));
    }
    if (threadIdx.x % WARP == 0) atomicMin(&extremes[0], low), atomicMax(&extremes[1], high);
    __syncthreads();
    smallest = extremes[0];
    largest = extremes[1];
}

// The bin that holds the k-th largest of what was counted, how many of it are among the k largest, and whether all are.
struct Bin {
    int digit, chosen, is_whole;
};

// counts [BINS], of which there are at least k; for warp 0.
__device__ __forceinline__ void find_bin(const int* counts, int k, Bin* found) {
    const int lane = threadIdx.x, last = BINS - 1 - lane * LANE_BINS;  // lane 0 has the largest digits
    int sum = 0;
    for (int i = 0; i < LANE_BINS; ++i) sum += counts[last - i];
    int behind = sum;
    for (int distance = 1; distance < WARP; distance *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, behind, distance);
        if (lane >= distance) behind += other;
    }
    int before = behind - sum;
    if (before >= k || behind < k) return;
    int digit = last;
    while (before + counts[digit] < k) before += counts[digit--];
    *found = {digit, k - before, before + counts[digit] == k};
}

// A limit that exactly k of the block's candidates reach, which are more than k.
__device__ __forceinline__ Candidate limit_of_best(const Candidate (&own)[OWN], int k) {
    __shared__ int counts[BINS];
    __shared__ Bin bin;
    Candidate smallest, largest;
    find_extremes(own, smallest, largest);
    int known = 64 - __clzll(static_cast<long long>(smallest ^ largest));  // from this bit on, all are alike
    Candidate limit = largest;
    while (true) {
        const int digit_bits = min(DIGIT, known), shift = known - digit_bits;
        for (int i = threadIdx.x; i < BINS; i += blockDim.x) counts[i] = 0;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OWN; ++i) {
            const Candidate differing = (own[i] ^ limit) >> shift >> digit_bits;  // two shifts, since 64 bits are too many for one
            if (own[i] && !differing) atomicAdd(&counts[own[i] >> shift & ((1 << digit_bits) - 1)], 1);
        }
        __syncthreads();
        if (threadIdx.x < WARP) find_bin(counts, k, &bin);
        __syncthreads();
        limit = (limit >> shift >> digit_bits << digit_bits | bin.digit) << shift;
        known = shift;
        k = bin.chosen;
        if (bin.is_whole) return limit;
    }
}

// Sort in falling order; `room` is a power of two. Numbers that are less than 64 apart stay within a warp.
__device__ __forceinline__ void sort_falling(Candidate* candidates, int room) {
    bool is_near = false;  // whether what a thread reads comes from its own warp
    for (int run = 2; run <= room; run *= 2)
        for (int distance = run / 2; distance > 0; distance /= 2) {
            if (is_near && distance <= WARP) __syncwarp();
            else __syncthreads();
            is_near = distance <= WARP;
            for (int pair = threadIdx.x; pair < room / 2; pair += blockDim.x) {
                const int low = pair / distance * 2 * distance + pair % distance, high = low + distance;
                const Candidate a = candidates[low], b = candidates[high];
                if ((a < b) == ((low & run) == 0)) candidates[low] = b, candidates[high] = a;
            }
        }
    __syncthreads();
}

// Write the k largest of the block's candidates, 0 for those that it lacks, in an order that only they decide.
__device__ __forceinline__ void write_best(const Candidate (&own)[OWN], int k, Candidate* best) {
    int count = 0, total;
#pragma unroll
    for (int i = 0; i < OWN; ++i) count += own[i] != 0;
    block_prefix(count, total);
    const Candidate limit = total > k ? limit_of_best(own, k) : 1;
    count = 0;
#pragma unroll
    for (int i = 0; i < OWN; ++i) count += own[i] >= limit;
    int place = block_prefix(count, total);
#pragma unroll
    for (int i = 0; i < OWN; ++i)
        if (own[i] >= limit) best[place++] = own[i];
    for (int i = total + threadIdx.x; i < k; i += blockDim.x) best[i] = 0;
}

// The candidates of a thread: entries of a query, of which `visible` are seen; and what is left of several runs.
__device__ __forceinline__ void read_scores(
    Candidate (&own)[OWN], const float* scores, long long first, int count, long long visible, int k) {
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        const long long entry = first + i * blockDim.x + threadIdx.x;
        own[i] = entry < count ? candidate_of(scores, entry, max(visible, 0ll), k) : 0;
    }
}

__device__ __forceinline__ void read_candidates(Candidate (&own)[OWN], const Candidate* candidates, int first, int count) {
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
        const int place = first + i * blockDim.x + threadIdx.x;
        own[i] = place < count ? candidates[place] : 0;
    }
}

// The k largest of the block's candidates, sorted, as entries; −1 for one that is not visible. Shared memory: `room`
// candidates, a power of two.
__device__ __forceinline__ void write_sorted(
    const Candidate (&own)[OWN], long long visible, long long* entries, int k, int room) {
    Candidate* sorted = dynamic_shared<Candidate>();
    write_best(own, k, sorted);
    for (int i = k + threadIdx.x; i < room; i += blockDim.x) sorted[i] = 0;
    sort_falling(sorted, room);
    for (int i = threadIdx.x; i < k; i += blockDim.x) {
        const long long entry = ~static_cast<unsigned>(sorted[i]);
        entries[i] = entry < visible ? entry : -1;
    }
}

// scores [rows, count], visible [rows] -> best [rows, gridDim.y, k]: of each run of entries. Blocks: row, run.
extern "C" __global__ void __launch_bounds__(512)
    best_of_scores(const float* scores, const long long* visible, unsigned long long* best, int count, int k) {
    const long long row = blockIdx.x;
    Candidate own[OWN];
    read_scores(own, scores + row * count, static_cast<long long>(blockIdx.y) * OWN * blockDim.x, count, visible[row], k);
    write_best(own, k, best + (row * gridDim.y + blockIdx.y) * k);
}

// candidates [rows, count] -> best [rows, gridDim.y, k]. Blocks: row, run.
extern "C" __global__ void __launch_bounds__(512)
    best_of_candidates(const unsigned long long* candidates, unsigned long long* best, int count, int k) {
    const long long row = blockIdx.x;
    Candidate own[OWN];
    read_candidates(own, candidates + row * count, blockIdx.y * OWN * blockDim.x, count);
    write_best(own, k, best + (row * gridDim.y + blockIdx.y) * k);
}

// Both for rows of a single run, which are the last step: -> entries [rows, k], sorted. Blocks: row.
extern "C" __global__ void __launch_bounds__(512)
    sorted_of_scores(const float* scores, const long long* visible, long long* entries, int count, int k, int room) {
    const long long row = blockIdx.x;
    Candidate own[OWN];
    read_scores(own, scores + row * count, 0, count, visible[row], k);
    write_sorted(own, visible[row], entries + row * k, k, room);
}

extern "C" __global__ void __launch_bounds__(512)
    sorted_of_candidates(
        const unsigned long long* candidates, const long long* visible, long long* entries, int count, int k, int room) {
    const long long row = blockIdx.x;
    Candidate own[OWN];
    read_candidates(own, candidates + row * count, 0, count);
    write_sorted(own, visible[row], entries + row * k, k, room);
}

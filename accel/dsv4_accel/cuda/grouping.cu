// Groups the visits of tokens to experts by expert, so that an expert's weights are read once for all of its tokens.
//
// A slot is one visit of one token: slot t·k + v is the v-th visit of token t. Each block looks at a chunk of slots,
// and each of its threads at one expert after another, which finds the slots of an expert in their order.
#include "prefix.cuh"
#include "status.cuh"

constexpr int CHUNK = 512;  // slots; grouping.py has the same number

// The experts of this block's chunk into `numbers`, −1 for a number that names none. Returns how many slots it has.
__device__ int read_chunk(
    const long long* indices, int* numbers, int slots, int experts, unsigned long long* status) {
    const int first = blockIdx.x * CHUNK, size = min(CHUNK, slots - first);
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
        const long long number = indices[first + i];
        numbers[i] = is_within(number, experts, NO_SUCH_EXPERT, status) ? (int)number : -1;
    }
    __syncthreads();
    return size;
}

__device__ int count_of(int expert, const int* numbers, int size) {
    int count = 0;
    for (int i = 0; i < size; ++i) count += numbers[i] == expert;
    return count;
}

// How often each expert is visited in each chunk. indices [slots]; counts [chunks, experts].
extern "C" __global__ void __launch_bounds__(256)
    count_visits(const long long* indices, int* counts, int slots, int experts, unsigned long long* status) {
    __shared__ int numbers[CHUNK];
    const int size = read_chunk(indices, numbers, slots, experts, status);
    for (int expert = threadIdx.x; expert < experts; expert += blockDim.x)
        counts[(long long)blockIdx.x * experts + expert] = count_of(expert, numbers, size);
}

// The tiles of one expert: each the expert, the place of its first slot in the order, how many slots.
__device__ void write_tiles(int* tiles, int first_tile, int expert, int start, int count, int tile_slots) {
    for (int done = 0; done < count; done += tile_slots) {
        int* tile = tiles + 3 * (first_tile + done / tile_slots);
        tile[0] = expert;
        tile[1] = start + done;
        tile[2] = min(tile_slots, count - done);
    }
}

// The slots in the order of their experts, and tiles of at most tile_slots slots of one expert.
//
// indices [slots]; counts [chunks, experts], or null for one chunk; order [slots]; tiles [most_tiles, 3], those behind
// the last with no slots.
extern "C" __global__ void __launch_bounds__(256)
    group_visits(const long long* indices, const int* counts, int* order, int* tiles, int slots, int experts,
                 int tile_slots, int most_tiles, unsigned long long* status) {
    __shared__ int numbers[CHUNK];
    const int size = read_chunk(indices, numbers, slots, experts, status), chunk = blockIdx.x;
    int slots_before = 0, tiles_before = 0;  // of the experts of earlier rounds
    for (int first = 0; first < experts; first += blockDim.x) {
        const int expert = first + threadIdx.x;
        int earlier = 0, count = 0;
        if (expert < experts && !counts) count = count_of(expert, numbers, size);
        if (expert < experts && counts)
            for (int other = 0; other < (int)gridDim.x; ++other) {
                const int here = counts[(long long)other * experts + expert];
                if (other < chunk) earlier += here;
                count += here;
            }
        int all_slots, all_tiles;
        const int start = slots_before + block_prefix(count, all_slots);
        const int tile = tiles_before + block_prefix((count + tile_slots - 1) / tile_slots, all_tiles);
        if (count > 0)
            for (int i = 0, place = start + earlier; i < size; ++i)
                if (numbers[i] == expert) order[place++] = chunk * CHUNK + i;
        if (chunk == 0) write_tiles(tiles, tile, expert, start, count, tile_slots);
        slots_before += all_slots;
        tiles_before += all_tiles;
    }
    for (int i = tiles_before + threadIdx.x; chunk == 0 && i < most_tiles; i += blockDim.x) tiles[3 * i + 2] = 0;
}

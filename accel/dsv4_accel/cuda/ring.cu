// The rows that a cache gains: mirrors `extend_ring` and `write_entries` of dsv4/ops/interface.py. Where a row stands
// follows from the first position and the number of tokens of its sequence, so no index is brought to the device.

// The remainder that is not negative.
__device__ __forceinline__ long long modulo(long long a, long long b) { return (a % b + b) % b; }

struct alignas(16) Vector {
    float numbers[4];
};

// A row's own numbers, as they go into the ring and behind it.
struct AsGiven {
    template <class Item>
    __device__ __forceinline__ Item operator()(const Item& given, long long, int) const { return given; }
};

// A row's numbers with those of its position's place in a block of `ratio` tokens added: terms [ratio, width] floats.
struct WithTerms {
    const Vector* terms;
    int ratio, width;
    __device__ __forceinline__ Vector operator()(const Vector& given, long long position, int i) const {
        const Vector& term = terms[modulo(position, ratio) * width + i];
        Vector sum;
        for (int j = 0; j < 4; ++j) sum.numbers[j] = given.numbers[j] + term.numbers[j];
        return sum;
    }
};

// One slot of a ring, or one row behind what the ring holds. A slot belongs to one block alone, which reads what stood
// there before it writes: the ring may be both read and overwritten at once.
template <class Item, class Stored>
__device__ __forceinline__ void extend(
    Item* ring, const Item* rows, Item* joined, const long long* starts, const long long* counts, int capacity, int keep,
    int length, int width, const Stored& stored) {
    const int sequence = blockIdx.x / (capacity + length), number = blockIdx.x % (capacity + length);
    const long long start = starts[sequence], end = start + counts[sequence];
    Item* out = joined + static_cast<long long>(sequence) * (keep + length) * width;
    const Item* given = rows + static_cast<long long>(sequence) * length * width;
    if (number >= capacity) {
        const long long token = number - capacity;
        for (int i = threadIdx.x; i < width; i += blockDim.x)
            out[(keep + token) * width + i] = stored(given[token * width + i], start + token, i);
        return;
    }
    Item* slot = ring + (static_cast<long long>(sequence) * capacity + number) * width;
    const long long back = modulo(start - 1 - number, capacity);     // from the last position before to the slot's
    const long long token = end - 1 - modulo(end - 1 - number, capacity) - start;  // the last one for the slot
    for (int i = threadIdx.x; i < width; i += blockDim.x) {
        if (back < keep) out[(keep - 1 - back) * width + i] = slot[i];
        if (token >= 0) slot[i] = stored(given[token * width + i], start + token, i);
    }
}

// ring [batch, capacity, width], position p at slot p mod capacity; rows [batch, length, width]: of positions from
// starts[b] on, counts[b] of them real; joined [batch, keep + length, width]. The width is a multiple of 4. Blocks: slots
// and rows of each sequence.
extern "C" __global__ void __launch_bounds__(128)
    extend_ring_vectors(float* ring, const float* rows, float* joined, const long long* starts, const long long* counts,
                        int capacity, int keep, int length, int width) {
    extend(reinterpret_cast<Vector*>(ring), reinterpret_cast<const Vector*>(rows), reinterpret_cast<Vector*>(joined), starts,
           counts, capacity, keep, length, width / 4, AsGiven());
}

// The same for rows of bytes, of any width.
extern "C" __global__ void __launch_bounds__(128)
    extend_ring_bytes(unsigned char* ring, const unsigned char* rows, unsigned char* joined, const long long* starts,
                      const long long* counts, int capacity, int keep, int length, int width) {
    extend(ring, rows, joined, starts, counts, capacity, keep, length, width, AsGiven());
}

// The rings of a compressor at once, blockIdx.y = 0 and 1: kv as it is, and score with ape [ratio, width] added.
extern "C" __global__ void __launch_bounds__(128)
    extend_pending(
        float* kv_ring, float* score_ring, const float* kv, const float* score, const float* ape, float* kv_joined,
        float* score_joined, const long long* starts, const long long* counts, int capacity, int keep, int length, int width,
        int ratio) {
    const int vectors = width / 4;
    if (blockIdx.y == 0)
        return extend(reinterpret_cast<Vector*>(kv_ring), reinterpret_cast<const Vector*>(kv),
                      reinterpret_cast<Vector*>(kv_joined), starts, counts, capacity, keep, length, vectors, AsGiven());
    const WithTerms with_ape = {reinterpret_cast<const Vector*>(ape), ratio, vectors};
    extend(reinterpret_cast<Vector*>(score_ring), reinterpret_cast<const Vector*>(score),
           reinterpret_cast<Vector*>(score_joined), starts, counts, capacity, keep, length, vectors, with_ape);
}

// One row, if its sequence completes so many entries.
template <class Item>
__device__ __forceinline__ void write(
    Item* entries, const Item* rows, const long long* starts, const long long* counts, int ratio, int room, int most,
    int width) {
    const int sequence = blockIdx.x / most, number = blockIdx.x % most;
    const long long start = starts[sequence], slot = start / ratio + number;
    if (slot >= (start + counts[sequence]) / ratio) return;
    Item* target = entries + (static_cast<long long>(sequence) * room + slot) * width;
    const Item* given = rows + static_cast<long long>(blockIdx.x) * width;
    for (int i = threadIdx.x; i < width; i += blockDim.x) target[i] = given[i];
}

// entries [batch, room, width]; rows [batch, most, width]: of each sequence the entries of `ratio` tokens that positions
// from starts[b] on complete, counts[b] of them real, and anything behind them. The width is a multiple of 4.
extern "C" __global__ void __launch_bounds__(128)
    write_entries_vectors(float* entries, const float* rows, const long long* starts, const long long* counts, int ratio,
                          int room, int most, int width) {
    write(reinterpret_cast<Vector*>(entries), reinterpret_cast<const Vector*>(rows), starts, counts, ratio, room, most,
          width / 4);
}

// The same for rows of bytes, of any width.
extern "C" __global__ void __launch_bounds__(128)
    write_entries_bytes(unsigned char* entries, const unsigned char* rows, const long long* starts, const long long* counts,
                        int ratio, int room, int most, int width) {
    write(entries, rows, starts, counts, ratio, room, most, width);
}

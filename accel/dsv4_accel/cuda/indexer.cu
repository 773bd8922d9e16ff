// The scores of the lightning indexer on the tensor cores: mirrors index_scores of dsv4/ops/indexer.py.
//
// Of each small product the left factor is 16 heads of a query and the right one 8 keys. A warp keeps the keys in registers
// while it goes through all heads. A float is three bfloat16 that add up to it; a number that was rounded to FP4 is one,
// and then the other products, which would add zeros, are left out: the bits are the same. A key's score is summed in an
// order that depends on nothing else.
#include "activations.cuh"
#include "angles.cuh"
#include "hadamard.cuh"
#include "packed.cuh"
#include "shared.cuh"

constexpr int HEADS = 16, KEYS = 8, TILES = 4, WARPS = 4;
constexpr int WARP_KEYS = TILES * KEYS, WORDS = 4;  // words of 8 columns that a lane has in a chunk

// What products take of a block's row, by a warp: see prepare_queries.
__device__ __forceinline__ void prepare_query(
    const float* row, unsigned short* pieces, float* units, bool* is_split, int width) {
    write_pieces(width, false, [=](int i) { return row[i]; }, pieces, units, blockIdx.x, gridDim.x);
    bool found = false;
    for (int i = threadIdx.x; i < width; i += WARP) found |= (__float_as_uint(row[i]) & 0xffffu) != 0;
    found = __any_sync(ALL_LANES, found);
    if (threadIdx.x == 0) is_split[blockIdx.x] = found;
}

// queries [rows, width] -> pieces [3, rows, 128·chunks] and units [rows] as in activations.cuh, and is_split [rows]:
// whether a number of the row is more than one piece. One block of a warp per row.
extern "C" __global__ void __launch_bounds__(32)
    prepare_queries(const float* queries, unsigned short* pieces, float* units, bool* is_split, int width) {
    prepare_query(queries + static_cast<long long>(blockIdx.x) * width, pieces, units, is_split, width);
}

// x [tokens, heads, width] -> out: turned as by rope.cu, rotated as by hadamard.cu and, if `rounds` says so, rounded to FP4
// in blocks of 32; and what prepare_queries makes of that. positions [tokens], frequencies [pairs]; the width is a power
// of two, 32 or more. One block of a warp for each head of a token. Shared memory: a row.
extern "C" __global__ void __launch_bounds__(32)
    index_queries(
        const float* x, const long long* positions, const float* frequencies, float* out, unsigned short* pieces,
        float* units, bool* is_split, int heads, int width, int pairs, float factor, bool rounds) {
    float* numbers = dynamic_shared<float>();
    const long long start = static_cast<long long>(blockIdx.x) * width, position = positions[blockIdx.x / heads];
    turn_row(x + start, numbers, width, width - 2 * pairs, [=](int pair, float& sine, float& cosine) {
        sine_and_cosine(angle_of(position, frequencies[pair]), sine, cosine);
    });
    rotate_rows(numbers, width, width);
    if (rounds) write_rounded_rows(numbers, width, factor, out + start);
    else write_rows(numbers, width, factor, out + start);
    __syncthreads();  // others read what this thread has written
    prepare_query(out + start, pieces, units, is_split, width);
}

// Keys as floats, [count, width]; the width is a multiple of 4.
struct FloatKeys {
    const float* keys;
    int width;

    // Eight columns of a key from `first` on, as pairs of pieces; whether they are more than one piece.
    template <int PIECES>
    __device__ __forceinline__ bool load(int key, int first, unsigned* const (&pairs)[PIECES]) const {
        const float* place = keys + static_cast<long long>(key) * width + first;
        const float4 none = make_float4(0, 0, 0, 0);
        const float4 a = first < width ? vector_at(place) : none, b = first + 4 < width ? vector_at(place + 4) : none;
        const float low[4] = {a.x, a.y, a.z, a.w}, high[4] = {b.x, b.y, b.z, b.w};
        unsigned rest = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            rest |= (__float_as_uint(low[i]) | __float_as_uint(high[i])) & 0xffffu;
#pragma unroll
            for (int piece = 0; piece < PIECES; ++piece)
                pairs[piece][i] = piece_of(low[i], piece) | piece_of(high[i], piece) << 16;
        }
        return rest != 0;
    }
};

// Keys in FP4, [count, width of a row]; the channels are an even number.
struct Fp4Keys {
    const unsigned char* keys;
    int width;  // of a key, in channels

    template <int PIECES>
    __device__ __forceinline__ bool load(int key, int first, unsigned* const (&pairs)[PIECES]) const {
        static_assert(PIECES == 1);
        const int bytes = width / 2, present = min(max(width - first, 0), 8) / 2;
        const unsigned char* row = keys + static_cast<long long>(key) * (bytes + (width + 31) / 32);
        StoredFp4 stored = {{0, 0, 0, 0}, present ? row[bytes + first / 32] : 127u};
        if (present == 4) stored.items.x = word_at(row + first / 2);
        else
            for (int i = 0; i < present; ++i) stored.items.x |= static_cast<unsigned>(row[first / 2 + i]) << 8 * i;
        unsigned found[4];
        stored.pairs(stored.scale(), 0, 0, found);
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[0][i] = found[i];
        return false;
    }
};

// What a lane holds of a chunk of some tiles of keys: 32 columns of one key of each tile.
template <int PIECES, int COUNT>
struct Keys {
    unsigned pairs[PIECES][COUNT][WORDS][4];

    // Keys from the last one on are read as the last one. Whether one of this lane's is more than one piece.
    template <class Source>
    __device__ __forceinline__ bool load(const Source& source, int first_key, int count, int chunk) {
        const int column = chunk * CHUNK + threadIdx.x % 4 * LANE_COLUMNS;
        bool is_split = false;
#pragma unroll
        for (int tile = 0; tile < COUNT; ++tile)
#pragma unroll
            for (int word = 0; word < WORDS; ++word) {
                unsigned* own[PIECES];
#pragma unroll
                for (int piece = 0; piece < PIECES; ++piece) own[piece] = pairs[piece][tile][word];
                const int key = min(first_key + tile * KEYS + static_cast<int>(threadIdx.x) % WARP / 4, count - 1);
                is_split |= source.load(key, column + word * 8, own);
            }
        return is_split;
    }
};

// The queries of one token, as prepare_queries gives them, and their weights [heads].
struct Queries {
    const unsigned short* pieces;
    const float *units, *weights;
    const bool* is_split;
    long long first, rows;  // the first head's row, of how many
    int heads, chunks;

    __device__ __forceinline__ const unsigned short* columns(int head, int chunk, int piece) const {
        return pieces + ((piece * rows + first + head) * chunks + chunk) * CHUNK + threadIdx.x % 4 * 8;
    }
};

// The heads of one query, where each block of the grid's first dimension has a query; arguments as of the kernels.
__device__ __forceinline__ Queries queries_of(
    long long query, const unsigned short* pieces, const float* units, const bool* is_split, const float* weights,
    int heads, int width) {
    const long long rows = static_cast<long long>(gridDim.x) * heads;
    return {pieces, units, weights + query * heads, is_split, query * heads, rows, heads, (width + CHUNK - 1) / CHUNK};
}

// One piece of 16 heads times the keys, in a chunk. The leading products have sums of their own (products.cuh).
template <bool IS_LEADING, int PIECES, int COUNT>
__device__ __forceinline__ void add_piece(
    float (&leading)[COUNT][4], float (&small)[COUNT][4], const Queries& queries, int above, int below, int chunk,
    int piece, const Keys<PIECES, COUNT>& keys) {
    const unsigned short *up = queries.columns(above, chunk, piece), *down = queries.columns(below, chunk, piece);
#pragma unroll
    for (int word = 0; word < WORDS; ++word) {
        const uint4 a = load16(up + word * 32), b = load16(down + word * 32);
        const unsigned low[4] = {a.x, b.x, a.y, b.y}, high[4] = {a.z, b.z, a.w, b.w};
#pragma unroll
        for (int tile = 0; tile < COUNT; ++tile)
#pragma unroll
            for (int other = 0; other < PIECES; ++other) {
                if (other == 2 && piece == 2) break;  // below a float's precision
                float (&sum)[4] = IS_LEADING && other == 0 ? leading[tile] : small[tile];
                const unsigned* pairs = keys.pairs[other][tile][word];
                multiply_add(sum, low, pairs[0], pairs[1]);
                multiply_add(sum, high, pairs[2], pairs[3]);
            }
    }
}

// What is not finite is so in the leading pieces; a small one may then be 0, and give a NaN that is not due.
__device__ __forceinline__ float both(float leading, float small) {
    return fabsf(leading) <= LARGEST_FLOAT ? leading + small : leading;
}

// scores [COUNT · KEYS], from first_key on: those before `count` are written.
template <int PIECES, int COUNT, class Source>
__device__ __forceinline__ void score(
    const Queries& queries, const Source& source, int first_key, int count, float* scores) {
    const int group = threadIdx.x % WARP / 4, quarter = threadIdx.x % 4;
    Keys<PIECES, COUNT> keys;
    float sums[COUNT][2] = {};
#pragma unroll 1
    for (int head = 0; head < queries.heads; head += HEADS) {
        // A head beyond the last is computed as the last, and has no weight.
        const int above = min(head + group, queries.heads - 1), below = min(head + 8 + group, queries.heads - 1);
        const bool splits = queries.is_split[queries.first + above] || queries.is_split[queries.first + below];
        const int pieces = __any_sync(ALL_LANES, splits) ? 3 : 1;
        float products[COUNT][4] = {};
#pragma unroll 1
        for (int chunk = 0; chunk < queries.chunks; ++chunk) {
            if (head == 0 || queries.chunks > 1) keys.load(source, first_key, count, chunk);
            float leading[COUNT][4] = {}, small[COUNT][4] = {};
            add_piece<true>(leading, small, queries, above, below, chunk, 0, keys);
#pragma unroll 1
            for (int piece = 1; piece < pieces; ++piece)
                add_piece<false>(leading, small, queries, above, below, chunk, piece, keys);
#pragma unroll
            for (int i = 0; i < COUNT * 4; ++i) products[i / 4][i % 4] += both(leading[i / 4][i % 4], small[i / 4][i % 4]);
        }
#pragma unroll
        for (int i = 0; i < COUNT * 4; ++i) {
            const int own = i % 4 / 2 ? below : above;
            const float product = products[i / 4][i % 4] * queries.units[queries.first + own];
            float& sum = sums[i / 4][i % 2];
            if (head + i % 4 / 2 * 8 + group < queries.heads) sum = fmaf(queries.weights[own], larger(product, 0), sum);
        }
    }
#pragma unroll
    for (int i = 0; i < COUNT * 2; ++i) {
        float sum = sums[i / 2][i % 2];
        for (int lanes = 4; lanes < WARP; lanes *= 2)  // those of other heads
            sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
        const int key = first_key + i / 2 * KEYS + 2 * quarter + i % 2;
        if (group == 0 && key < count) scores[key] = sum;
    }
}

// The scores of a warp's keys, all of one piece or some of three.
__device__ __forceinline__ void score_floats(
    const Queries& queries, const FloatKeys& source, int first_key, int count, float* scores) {
    bool is_split = false;
#pragma unroll 1
    for (int chunk = 0; chunk < queries.chunks; ++chunk) {
        Keys<1, TILES> keys;
        is_split |= keys.load(source, first_key, count, chunk);
    }
    if (!__any_sync(ALL_LANES, is_split)) return score<1, TILES>(queries, source, first_key, count, scores);
#pragma unroll 1
    for (int tile = 0; tile < TILES && first_key + tile * KEYS < count; ++tile)
        score<3, 1>(queries, source, first_key + tile * KEYS, count, scores);
}

// pieces, units, is_split: of queries [batch · length · heads, width], as prepare_queries gives them; keys [batch, count,
// width], key_step bytes from one sequence to the next; weights [batch · length, heads] -> scores [batch · length, count].
// visible [batch · length], or null: keys from it on need no score. The width is a multiple of 4. Blocks: query, run of keys.
extern "C" __global__ void __launch_bounds__(128, 2)
    index_scores(
        const unsigned short* pieces, const float* units, const bool* is_split, const float* keys, long long key_step,
        const float* weights, const long long* visible, float* scores, int length, int heads, int count, int width) {
    const long long query = blockIdx.x;
    const int first_key = (blockIdx.y * WARPS + threadIdx.x / WARP) * WARP_KEYS;
    if (first_key >= count || (visible && first_key >= visible[query])) return;
    const Queries queries = queries_of(query, pieces, units, is_split, weights, heads, width);
    const FloatKeys source = {keys + query / length * (key_step / 4), width};
    score_floats(queries, source, first_key, count, scores + query * count);
}

// The same of keys in FP4, [batch, count, width of a row] bytes. The width, in channels, is an even number.
extern "C" __global__ void __launch_bounds__(128)
    index_scores_fp4(
        const unsigned short* pieces, const float* units, const bool* is_split, const unsigned char* keys, long long key_step,
        const float* weights, const long long* visible, float* scores, int length, int heads, int count, int width) {
    const long long query = blockIdx.x;
    const int first_key = (blockIdx.y * WARPS + threadIdx.x / WARP) * WARP_KEYS;
    if (first_key >= count || (visible && first_key >= visible[query])) return;
    const Queries queries = queries_of(query, pieces, units, is_split, weights, heads, width);
    const Fp4Keys source = {keys + query / length * key_step, width};
    score<1, TILES>(queries, source, first_key, count, scores + query * count);
}

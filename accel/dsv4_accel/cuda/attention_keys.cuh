#pragma once
// The rows that a query of attention reads: which they are, and how they are stored.
#include "packed.cuh"
#include "status.cuh"

// Rows of one kind, as a launch gives them: of the first sequence, and how many bytes further those of the next begin.
struct Rows {
    const void* first;
    const long long* index;  // [batch · length, named]: the rows that each query reads
    int named, count;
    long long step;
    RowFormat format;
};

// A row of a cache as it is stored; null for one that is not there.
struct Row {
    const unsigned char* bytes;
    RowFormat format;
};

// The keys of a query: first those from the window, then those from the entries. Pointers are those of the launch, which
// take no registers; what belongs to the block's query is found from them.
struct Keys {
    Rows window, entries;
    int channels, sequence;
    unsigned long long* status;

    __device__ __forceinline__ int count() const { return window.named + entries.named; }
    __device__ __forceinline__ Row row(int key) const {
        if (key < window.named) return row_of(window, key, NO_SUCH_WINDOW_ROW);
        return row_of(entries, key - window.named, NO_SUCH_ENTRY);
    }
    __device__ __forceinline__ Row row_of(const Rows& rows, int key, unsigned long long problem) const {
        if (key >= rows.named) return {nullptr, rows.format};
        const long long found = rows.index[static_cast<long long>(blockIdx.x) * rows.named + key];
        if (found < 0 || !is_within(found, rows.count, problem, status)) return {nullptr, rows.format};
        const unsigned char* first = static_cast<const unsigned char*>(rows.first) + sequence * rows.step;
        return {first + found * rows.format.width(channels / 4), rows.format};
    }
};

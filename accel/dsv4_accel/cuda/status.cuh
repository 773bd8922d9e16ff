#pragma once
// Notes for the host about numbers that name nothing: see status.py, whose PROBLEMS these are.

constexpr unsigned long long NO_SUCH_TOKEN = 1, NO_SUCH_EXPERT = 2, NO_SUCH_WINDOW_ROW = 3, NO_SUCH_ENTRY = 4;

// Whether 0 <= found < count; if not, that is noted unless something is noted already. status [3]: code, found, count.
__device__ __forceinline__ bool is_within(
    long long found, long long count, unsigned long long problem, unsigned long long* status) {
    if (found >= 0 && found < count) return true;
    if (atomicCAS(status, 0ull, problem) == 0ull) {
        status[1] = static_cast<unsigned long long>(found);
        status[2] = static_cast<unsigned long long>(count);
    }
    return false;
}

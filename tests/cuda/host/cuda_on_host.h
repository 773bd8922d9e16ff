// Runs CUDA C++ kernels on the host, so that they can be held to the reference without a GPU.
//
// The threads of a block are fibers on one processor thread. A fiber runs until it waits for others, so a launch can
// choose in which order threads get their turn: a kernel that forgets a barrier gives other results in another order.
// Waiting for threads that can never come, a fault on a GPU as well, is an error. Blocks run one after the other.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

constexpr int WARP_SIZE = 32;
constexpr int MOST_THREADS = 1024;
constexpr std::size_t STACK_BYTES = 128 * 1024;
constexpr std::size_t SHARED_BYTES = 228 * 1024;

enum class State { ready, at_warp, at_block, done };

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    void* stack = nullptr;
    State state = State::done;
    bool started = false;
    unsigned exchanges = 0;
};

// What the lanes of a warp show each other, twice: a lane that is ahead by one exchange writes where nobody reads yet.
struct Exchange {
    alignas(16) char slot[2][WARP_SIZE][16];
};

static Fiber fibers[MOST_THREADS];
static Exchange warps[MOST_THREADS / WARP_SIZE];
alignas(256) static char dynamic_shared[SHARED_BYTES];
static jmp_buf scheduler;
static unsigned current;
static const char* error;
static void (*kernel_call)(void**);
static void** kernel_arguments;

[[noreturn]] static void give_way() { _longjmp(scheduler, 1); }

static void wait(State state) {
    fibers[current].state = state;
    if (_setjmp(fibers[current].place) == 0) give_way();
}

// What a fiber runs: one thread of one block after another.
static void fiber_main() {
    for (;;) {
        kernel_call(kernel_arguments);
        wait(State::done);
    }
}

static void resume(unsigned thread) {
    current = thread;
    threadIdx.x = thread;
    Fiber& fiber = fibers[thread];
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    fiber.started = true;
    if (!fiber.stack) fiber.stack = std::malloc(STACK_BYTES);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
}

// Let those of a run of threads go on that all wait for the same; whether any did.
static bool release(unsigned first, unsigned behind, State state, bool without_done) {
    bool any = false;
    for (unsigned thread = first; thread < behind; ++thread) {
        const State found = fibers[thread].state;
        if (found == state) any = true;
        else if (!(without_done && found == State::done)) return false;
    }
    if (any)
        for (unsigned thread = first; thread < behind; ++thread)
            if (fibers[thread].state == state) fibers[thread].state = State::ready;
    return any;
}

// A product of small matrices by the threads of a warp (mma.cuh), each with its part of them.
struct SmallProduct {
    unsigned given, a[WARP_SIZE][4], b[WARP_SIZE][2];  // given: by how many lanes
    float* sum[WARP_SIZE];
};
static SmallProduct small_products[MOST_THREADS / WARP_SIZE];

// A warp goes on until each of its threads waits for the block or is done, so that warps get as far apart as barriers let
// them. Threads get their turn from the first, or backward from the last. Whether any went on.
static bool run_warp(unsigned first, unsigned behind, bool backward) {
    bool any = false;
    do
        for (unsigned turn = 0; turn < behind - first; ++turn) {
            const unsigned thread = backward ? behind - 1 - turn : first + turn;
            if (fibers[thread].state != State::ready) continue;
            resume(thread);
            any = true;
        }
    while (release(first, behind, State::at_warp, false));
    return any;
}

// One block, its warps from the first or backward from the last.
static bool run_block(unsigned threads, unsigned shared, bool backward) {
    for (unsigned thread = 0; thread < threads; ++thread) fibers[thread].state = State::ready, fibers[thread].exchanges = 0;
    for (auto& product : small_products) product.given = 0;
    std::memset(dynamic_shared, 0xff, shared);  // NaN, whoever reads before writing
    const unsigned warps = (threads + WARP_SIZE - 1) / WARP_SIZE;
    for (;;) {
        bool progress = false;
        for (unsigned turn = 0; turn < warps; ++turn) {
            const unsigned first = (backward ? warps - 1 - turn : turn) * WARP_SIZE;
            progress |= run_warp(first, first + WARP_SIZE < threads ? first + WARP_SIZE : threads, backward);
        }
        progress |= release(0, threads, State::at_block, true);
        bool all_done = true;
        for (unsigned thread = 0; thread < threads && all_done; ++thread) all_done = fibers[thread].state == State::done;
        if (all_done) return true;
        if (!progress) {
            error = "threads of a block wait for each other at different places";
            for (unsigned thread = 0; thread < threads; ++thread) fibers[thread].started = false;
            return false;
        }
    }
}

// Show a value to the other lanes, and wait until all have shown theirs. Returns where those are.
template <class T>
char (&show(T value))[WARP_SIZE][16] {
    static_assert(sizeof(T) <= 16);
    auto& slots = warps[current / WARP_SIZE].slot[fibers[current].exchanges++ % 2];
    std::memcpy(slots[current % WARP_SIZE], &value, sizeof value);
    wait(State::at_warp);
    return slots;
}

template <class T>
T exchange(T value, unsigned from) {
    T other;
    std::memcpy(&other, show(value)[from % WARP_SIZE], sizeof other);
    return other;
}

template <class... Parameters, std::size_t... Number>
void call(void (*kernel)(Parameters...), void** arguments, std::index_sequence<Number...>) {
    kernel(*static_cast<std::remove_const_t<Parameters>*>(arguments[Number])...);
}

template <class... Parameters>
void call(void (*kernel)(Parameters...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<Parameters...>{});
}

// Subnormal numbers, given or computed, are zeros from now on, as a compiler for GPUs can be asked for; or they are not.
// What was set before is given back.
static bool set_flush_to_zero(bool flush) {
#ifdef __SSE__
    constexpr unsigned BOTH = 0x8040;
    const unsigned before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(flush ? before | BOTH : before & ~BOTH);
    return before & BOTH;
#else
    if (flush) error = "this processor's way to take subnormal numbers for zeros is not known here";
    return false;
#endif
}

}  // namespace host

// Run a kernel through its `call_…`. backward: whether the last threads and blocks come first; flush: whether subnormal
// numbers are zeros. Returns null, or what went wrong.
extern "C" const char* run_on_host(
    void (*kernel)(void**), void** arguments, const unsigned* grid, unsigned threads, unsigned shared, bool backward,
    bool flush) {
    host::error = nullptr;
    const bool before = host::set_flush_to_zero(flush);
    host::kernel_call = kernel;
    host::kernel_arguments = arguments;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {threads, 1, 1};
    if (threads > host::MOST_THREADS || threads == 0) host::error = "a block has 1 to 1024 threads";
    if (shared > host::SHARED_BYTES) host::error = "a block has at most 227 KiB of shared memory";
    const std::uint64_t blocks = std::uint64_t(grid[0]) * grid[1] * grid[2];
    if (blocks == 0 || grid[1] > 65535 || grid[2] > 65535) host::error = "a grid has blocks on every axis, and not too many";
    for (std::uint64_t turn = 0; turn < blocks && !host::error; ++turn) {
        const std::uint64_t block = backward ? blocks - 1 - turn : turn;
        blockIdx = {unsigned(block % grid[0]), unsigned(block / grid[0] % grid[1]), unsigned(block / grid[0] / grid[1])};
        host::run_block(threads, shared, backward);
    }
    host::set_flush_to_zero(before);
    return host::error;
}

#include "cuda_functions.h"
#include "tensor_cores.h"

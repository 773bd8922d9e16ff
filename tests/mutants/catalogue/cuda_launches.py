"""Mistakes in how CUDA's kernels are launched, in what products share, and in the rows that a cache gains."""

from mutants.catalogue.kernels import kernel

SHARED = "cuda/test_shared_inputs.py::"
RING = "cuda/test_ring.py::test_a_ring_is_extended"
ENTRIES = "cuda/test_ring.py::test_entries_are_written"

CUDA_LAUNCHES = (
    kernel(
        name="cuda-int-of-64-bits",
        trap="an int is handed to a kernel in 64 bits, and what stands behind it is misplaced",
        file="cuda/launcher.py",
        old='"int": "i"',
        new='"int": "q"',
        tests=("cuda/test_launcher.py::test_arguments_are_aligned_as_in_c",),
    ),
    kernel(
        name="cuda-dtypes-looked-at-once",
        trap="the dtypes of arrays are compared at a kernel's first launch only",
        file="cuda/launcher.py",
        old="    if not ({' and '.join(checks) or True}): check(",
        new="    if False: check(",
        tests=("cuda/test_launcher.py::test_what_does_not_fit_is_an_error_at_every_launch",),
    ),
    kernel(
        name="cuda-rounded-rows-for-all",
        trap="a product whose input is not rounded takes the rows that another product had rounded",
        file="cuda/activations.py",
        old="_kept.get((device.address(whole), rows, columns, rounds))",
        new="_kept.get((device.address(whole), rows, columns, True))",
        tests=(f"{SHARED}test_an_input_is_laid_out_once_rounded_and_once_as_it_is",),
    ),
    kernel(
        name="cuda-rows-of-a-dead-input",
        trap="an input is taken for one that is gone and stood at the same place",
        file="cuda/activations.py",
        old="if known is not None and known[0]() is not None:",
        new="if known is not None:",
        tests=(f"{SHARED}test_another_input_with_the_name_of_a_dead_one_is_laid_out",),
    ),
    kernel(
        name="cuda-rows-of-a-longer-input",
        trap="an input that begins where another one does is taken for it, whatever its rows",
        file="cuda/activations.py",
        old="_kept.get((device.address(whole), rows, columns, rounds))",
        new="next((one for key, one in _kept.items() if key[::2] == (device.address(whole), columns)), None)",
        tests=(f"{SHARED}test_the_same_numbers_in_another_shape_are_laid_out_once",),
    ),
    kernel(
        name="cuda-ring-written-before-it-is-read",
        trap="a new row takes its slot in the ring before the old one there has been read",
        file="cuda/ring.cu",
        old="        if (back < keep) out[(keep - 1 - back) * width + i] = slot[i];\n"
        "        if (token >= 0) slot[i] = stored(given[token * width + i], start + token, i);\n",
        new="        if (token >= 0) slot[i] = stored(given[token * width + i], start + token, i);\n"
        "        if (back < keep) out[(keep - 1 - back) * width + i] = slot[i];\n",
        tests=(f"{RING}[more rows than the ring has-6-7-float32]",),
    ),
    kernel(
        name="cuda-padding-kept-in-the-ring",
        trap="padding behind a sequence's tokens goes into its ring, over rows that are still needed",
        file="cuda/ring.cu",
        old="end = start + counts[sequence];\n    Item* out",
        new="end = start + max(counts[sequence], 1ll * length);\n    Item* out",
        tests=(f"{RING}[a prompt with padding-6-7-float32]",),
    ),
    kernel(
        name="cuda-ring-forgets-the-sign",
        trap="the remainder of a negative position is negative, and names no slot",
        file="cuda/ring.cu",
        old="return (a % b + b) % b;",
        new="return a % b;",
        tests=(f"{RING}[a step at the beginning-6-7-float32]",),
    ),
    kernel(
        name="cuda-entries-that-are-not-complete",
        trap="an entry is written for the block that a sequence does not complete, too",
        file="cuda/ring.cu",
        old="if (slot >= (start + counts[sequence]) / ratio) return;",
        new="if (slot > (start + counts[sequence]) / ratio) return;",
        tests=(f"{ENTRIES}[a prompt-float32]",),
    ),
)

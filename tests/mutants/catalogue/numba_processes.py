"""Mistakes in how Numba's kernels are kept for the next process, and used by several threads and forked processes."""

from mutants.catalogue.kernels import kernel

CACHED = (
    kernel(
        name="numba-cache-knows-one-file",
        trap="compiled kernels are found again although a file that they take code from has changed",
        file="numba/kernel_files.py",
        old="files += [other for other in _imported(file) if other not in files]",
        new="files += []",
        tests=("accel/test_numba_compile.py::test_a_change_of_a_source_compiles_its_kernels_anew",),
    ),
    kernel(
        name="numba-cache-without-settings",
        trap="the portable path and checked bounds share compiled kernels with what is neither",
        file="numba/compile.py",
        old='f"{parallel} {PORTABLE} {CHECKS_BOUNDS} {numba.config.OPT}"',
        new='f"{parallel}"',
        tests=("accel/test_numba_compile.py::test_settings_have_machine_code_of_their_own",),
    ),
    kernel(
        name="numba-cache-of-any-name",
        trap="a compiled kernel is taken for another one whose file it was copied over",
        file="numba/kernel_files.py",
        old="hashlib.sha256(path.name.encode() + data)",
        new="hashlib.sha256(data)",
        tests=("accel/test_numba_compile.py::test_damaged_files_are_made_anew",),
    ),
    kernel(
        name="numba-cache-without-turns",
        trap="of several processes that want a kernel each compiles it",
        file="numba/kernel_files.py",
        old="while not _is_locked(fcntl, lock) and",
        new="while False and",
        tests=("accel/test_numba_compile.py::test_two_processes_at_once_compile_each_kernel_once",),
    ),
)

THREADS = (
    kernel(
        name="numba-first-use-unguarded",
        trap="two threads that use a kernel for the first time compile it both, and one finds that it may not",
        file="numba/compile.py",
        old="        with global_compiler_lock:",
        new="        if not self.is_ready:",
        tests=("accel/test_numba_threads.py::test_the_first_use_in_several_threads_compiles_once",),
    ),
    kernel(
        name="numba-forked-threads-used",
        trap="a forked process begins a loop on threads that stayed with its parent",
        file="numba/threads.py",
        old="return not _stayed_with_the_parent and",
        new="return",
        tests=("accel/test_numba_threads.py::test_threads_and_forks_find_the_same_bits",),
    ),
    kernel(
        name="numba-loops-begun-at-once",
        trap='two threads begin loops at once where Numba\'s layer "workqueue" takes one at a time',
        file="numba/threads.py",
        old='return layer == "workqueue"',
        new="return False",
        tests=("accel/test_numba_threads.py::test_threads_and_forks_find_the_same_bits",),
    ),
)

NUMBA_PROCESSES = CACHED + THREADS

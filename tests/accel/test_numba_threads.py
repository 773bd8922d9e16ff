"""Kernels are called from several threads of Python, and in processes that were forked: the same bits, no end, no wait.

Each test is a process of its own, since it ends or hangs where the promise is broken, and Numba's layer of threads can
be chosen once.
"""

import os

import pytest

from accel.processes import SOURCES, report_of, run_python

pytest.importorskip("numba")

from dsv4_accel.numba import tbb

FIRST_USE = """
import json, threading
import numpy as np
from numba.core import event
from kernels_of_this_test import KERNELS

ready, failures = threading.Barrier(4), []
x, results = np.arange(1, 4, dtype=np.float32), np.zeros((4, len(KERNELS), 3), np.float32)

def use(place):
    ready.wait()
    try:
        for kernel, result in zip(KERNELS, results[place]):
            kernel(1, x, result)
    except BaseException as failure:
        failures.append(repr(failure))

threads = [threading.Thread(target=use, args=[place]) for place in range(4)]
with event.install_recorder("numba:compile") as recorder:
    for thread in threads: thread.start()
    for thread in threads: thread.join()
print(json.dumps({"failures": failures, "results": (results / x).tolist(),
                  "compiled": [e.data["dispatcher"].py_func.__name__ for _, e in recorder.buffer if e.is_start]}))
"""

FORK_WHILE_COMPILING = """
import json, os, threading
import numpy as np
from numba.core import event
from kernels_of_this_test import KERNELS

class Started(event.Listener):
    happened = threading.Event()
    def on_start(self, event):
        self.happened.set()
    def on_end(self, event):
        pass

def use(kernel):
    x, result = np.arange(1, 4, dtype=np.float32), np.zeros(3, np.float32)
    kernel(1, x, result)
    return (result / x).tolist()

with event.install_listener("numba:compile", Started()):
    thread = threading.Thread(target=KERNELS[0].prepare)
    thread.start()
    Started.happened.wait()
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, json.dumps([use(kernel) for kernel in KERNELS]).encode())
        os._exit(0)
    os.close(writing)
    thread.join()
print(os.fdopen(reading).read())
"""

KERNELS = """
from numba import types
from dsv4_accel.numba.compile import kernel, reads, writes

@kernel(reads(types.float32, 1), writes(types.float32, 1))
def twice(x, product):
    for i in range(x.size):
        product[i] = 2 * x[i]

@kernel(reads(types.float32, 1), writes(types.float32, 1))
def thrice(x, product):
    for i in range(x.size):
        product[i] = 3 * x[i]

KERNELS = [twice, thrice]
"""

ON_ALL_THREADS = """
import hashlib, json, multiprocessing, os, threading
import numba, numpy as np
from dsv4.ops import Ops
from dsv4_accel.numba import NumbaOps
from dsv4_accel.numba.threads import are_usable

x = np.sin(np.arange(512 * 512)).astype(np.float32).reshape(512, 512)

def bits(_=None):
    results = NumbaOps.fake_quant_fp8(x, 64), NumbaOps.rms_scale(x, 1e-6)
    return [hashlib.sha256(result.tobytes()).hexdigest() for result in results]

def in_child():
    reading, writing = os.pipe()
    if not (child := os.fork()):
        os.write(writing, json.dumps([are_usable(), bits()]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the child was ended"
    return json.loads(said)

def in_threads():
    ready, found = threading.Barrier(4), []
    def repeat():
        ready.wait()
        found.extend(bits() for _ in range(8))
    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return found

report = {"fork before": in_child(), "own": bits(), "threads": in_threads(), "fork": in_child()}
with multiprocessing.get_context("fork").Pool(2) as pool:
    report["pool"] = pool.map(bits, range(4))
report["own again"] = bits()
report["layer"] = numba.threading_layer()
report["reference"] = hashlib.sha256(Ops.fake_quant_fp8(x, 64).tobytes()).hexdigest()
print(json.dumps(report), flush=True)
os._exit(0)  # without a remark of TBB's about forks, which waits in C's buffer
"""


@pytest.fixture
def new_kernels(tmp_path):
    """Where to find two kernels that nobody has compiled, and where to keep them."""
    (tmp_path / "kernels_of_this_test.py").write_text(KERNELS, encoding="utf-8")
    return {"sources": [tmp_path, *SOURCES], "NUMBA_CACHE_DIR": str(tmp_path / "cache")}


def test_the_first_use_in_several_threads_compiles_once(new_kernels):
    report = report_of(run_python(FIRST_USE, **new_kernels))
    assert report == {"failures": [], "results": [[[2] * 3, [3] * 3]] * 4, "compiled": ["twice", "thrice"]}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_another_thread_compiles_can_compile(new_kernels):
    assert report_of(run_python(FORK_WHILE_COMPILING, **new_kernels)) == [[2] * 3, [3] * 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(("layer", "module"), [("tbb", "tbbpool"), ("omp", "omppool"), ("workqueue", "workqueue")])
def test_threads_and_forks_find_the_same_bits(layer, module):
    """With TBB and GNU's OpenMP, a process that was forked after its parent's first loop uses one thread only."""
    tbb.load()
    pytest.importorskip(f"numba.np.ufunc.{module}", exc_type=ImportError)
    settings = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    report = report_of(run_python(ON_ALL_THREADS, **settings))
    own = report["own"]
    assert report["layer"] == layer
    assert own[0] == report["reference"]
    assert report["own again"] == own
    assert report["threads"] == [own] * 32
    assert report["pool"] == [own] * 4
    assert report["fork before"] == [True, own]
    assert report["fork"] == [layer == "workqueue", own]

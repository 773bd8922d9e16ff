"""The catalogue: every mistake of the project's list of traps, and more that are as easy to make, part by part."""

from mutants.catalogue.attention import ATTENTION
from mutants.catalogue.cache import CACHE
from mutants.catalogue.checking import CHECKING
from mutants.catalogue.compression import COMPRESSION
from mutants.catalogue.connections import CONNECTIONS
from mutants.catalogue.cuda_launches import CUDA_LAUNCHES
from mutants.catalogue.cuda_packed import CUDA_PACKED
from mutants.catalogue.cuda_products import CUDA_PRODUCTS
from mutants.catalogue.cuda_rows import CUDA_ROWS
from mutants.catalogue.derivatives import DERIVATIVES
from mutants.catalogue.diloco import DILOCO
from mutants.catalogue.dspark import DSPARK
from mutants.catalogue.engine import ENGINE
from mutants.catalogue.experts import EXPERTS
from mutants.catalogue.explaining import EXPLAINING
from mutants.catalogue.files_v41 import FILES_V41
from mutants.catalogue.formats import FORMATS
from mutants.catalogue.generation import GENERATION
from mutants.catalogue.gradients import GRADIENTS
from mutants.catalogue.learning import LEARNING
from mutants.catalogue.learning_data import LEARNING_DATA
from mutants.catalogue.losses import LOSSES
from mutants.catalogue.memory import MEMORY
from mutants.catalogue.numba_attention import NUMBA_ATTENTION
from mutants.catalogue.numba_connections import NUMBA_CONNECTIONS
from mutants.catalogue.numba_derivatives import NUMBA_DERIVATIVES
from mutants.catalogue.numba_processes import NUMBA_PROCESSES
from mutants.catalogue.numba_products import NUMBA_PRODUCTS
from mutants.catalogue.numba_routing import NUMBA_ROUTING
from mutants.catalogue.numba_rows import NUMBA_ROWS
from mutants.catalogue.numba_v41 import NUMBA_V41
from mutants.catalogue.optimisers import OPTIMISERS
from mutants.catalogue.pictures import PICTURES
from mutants.catalogue.post_training import POST_TRAINING
from mutants.catalogue.rounding import ROUNDING
from mutants.catalogue.serving import SERVING
from mutants.catalogue.text import TEXT
from mutants.catalogue.text_v41 import TEXT_V41
from mutants.catalogue.training import TRAINING
from mutants.catalogue.v41_layers import V41_LAYERS
from mutants.catalogue.v41_parts import V41_PARTS
from mutants.mutant import Mutant

PARTS: dict[str, tuple[Mutant, ...]] = {
    "formats": FORMATS,
    "rounding": ROUNDING,
    "connections": CONNECTIONS,
    "attention": ATTENTION,
    "compression": COMPRESSION,
    "experts": EXPERTS,
    "checking": CHECKING,
    "cache": CACHE,
    "memory": MEMORY,
    "generation": GENERATION,
    "dspark": DSPARK,
    "v41_layers": V41_LAYERS,
    "v41_parts": V41_PARTS,
    "text": TEXT,
    "text_v41": TEXT_V41,
    "files_v41": FILES_V41,
    "engine": ENGINE,
    "learning": LEARNING,
    "derivatives": DERIVATIVES,
    "optimisers": OPTIMISERS,
    "losses": LOSSES,
    "gradients": GRADIENTS,
    "learning_data": LEARNING_DATA,
    "training": TRAINING,
    "pictures": PICTURES,
    "explaining": EXPLAINING,
    "post_training": POST_TRAINING,
    "diloco": DILOCO,
    "serving": SERVING,
    "numba_rows": NUMBA_ROWS,
    "numba_connections": NUMBA_CONNECTIONS,
    "numba_products": NUMBA_PRODUCTS,
    "numba_routing": NUMBA_ROUTING,
    "numba_v41": NUMBA_V41,
    "numba_attention": NUMBA_ATTENTION,
    "numba_derivatives": NUMBA_DERIVATIVES,
    "numba_processes": NUMBA_PROCESSES,
    "cuda_rows": CUDA_ROWS,
    "cuda_products": CUDA_PRODUCTS,
    "cuda_packed": CUDA_PACKED,
    "cuda_launches": CUDA_LAUNCHES,
}

MUTANTS = tuple(mutant for part in PARTS.values() for mutant in part)

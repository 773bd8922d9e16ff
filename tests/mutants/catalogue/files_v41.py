"""Mistakes in V4.1's files, and in what is counted from its configuration."""

from mutants.mutant import Mutant

WRITTEN = "checkpoint/test_written41.py"
COST = "model41/test_cost41.py"

FILES_V41 = (
    Mutant(
        name="settings-at-top-level",
        trap="the settings of the text path are written at the top level of config.json instead of text_config",
        file="checkpoint/config41_json.py",
        old='        "text_config": text,\n',
        new='        **text,\n        "text_config": {"model_type": TEXT_MODEL_TYPE},\n',
        tests=(f"{WRITTEN}::test_a_config_is_read_as_it_was_written",),
    ),
    Mutant(
        name="entries-in-groups-of-32",
        trap="an entry is counted with a scale for each 32 channels, as an index key has it",
        file="cost/v41.py",
        old="KEY_BLOCK, ENTRY_BLOCK = 32, 16",
        new="KEY_BLOCK, ENTRY_BLOCK = 32, 32",
        tests=(f"{COST}::test_a_row_of_each_kind_has_the_released_bytes",),
    ),
    Mutant(
        name="entries-counted-in-every-layer",
        trap="every layer that reads entries is counted as if it stored them",
        file="cost/v41.py",
        old="    if config.is_kv_source(layer):\n        ratio, width",
        new="    if config.compress_ratios[layer]:\n        ratio, width",
        tests=(f"{COST}::test_a_cache_has_the_predicted_bytes_at_every_length",),
    ),
    Mutant(
        name="scores-outside-the-pool",
        trap="a layer behind the pool is counted as if it scored all entries",
        file="cost/v41.py",
        old="_in_pool(config, entries) if config.has_candidates(layer) else entries",
        new="entries",
        tests=(f"{COST}::test_a_model_asks_for_what_is_predicted_part_by_part",),
    ),
    Mutant(
        name="table-converted-whole",
        trap="all rows of an Engram's table are held while it is converted",
        file="checkpoint/parts.py",
        old="count = max(1, NUMBERS_AT_ONCE // prod(self.shape[1:]))",
        new="count = self.shape[0]",
        tests=(f"{WRITTEN}::test_a_table_is_converted_in_parts_of_a_few_rows",),
    ),
)

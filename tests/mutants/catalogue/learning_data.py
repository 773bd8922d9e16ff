"""Mistakes in what training reads, and in how it is measured what was learned."""

from mutants.mutant import Mutant

ROWS = ("learn/texts/test_batches.py",)
RECALL = ("learn/texts/test_recall.py",)

LEARNING_DATA = (
    Mutant(
        name="documents-with-control-ids",
        trap="special-token text in a text to learn from is parsed as control tokens",
        file="learn/texts/documents.py",
        old="tokenizer.encode(text)",
        new="tokenizer.encode(text, allow_special=True)",
        tests=("learn/texts/test_documents.py::test_text_never_becomes_a_control_token",),
    ),
    Mutant(
        name="rows-across-documents",
        trap="rows are cut from all documents in one run, so that tokens attend and are predicted across documents",
        file="learn/texts/batches.py",
        old="self._documents, self._length, self._seed = documents, length, seed",
        new="self._documents, self._length, self._seed = [np.concatenate(documents)], length, seed",
        also=(("len(document) - 1 for document in documents", "len(document) - 1 for document in self._documents"),),
        tests=ROWS,
    ),
    Mutant(
        name="rows-without-their-last-label",
        trap="a row has as many tokens as are predicted, so that its last label is missing",
        file="learn/texts/batches.py",
        old="document[start : start + self._length + 1]",
        new="document[start : start + self._length]",
        tests=ROWS,
    ),
    Mutant(
        name="rows-with-the-same-cuts",
        trap="long documents are cut at the same places each time",
        file="learn/texts/batches.py",
        old="np.clip(evenly + shift, 0, last)",
        new="np.clip(evenly, 0, last)",
        tests=("learn/texts/test_batches.py::test_a_long_document_is_read_evenly_and_cut_at_changing_places",),
    ),
    Mutant(
        name="rows-in-one-order",
        trap="a source is gone through in the same order each time",
        file="learn/texts/batches.py",
        old="generator = np.random.default_rng((*self._seed, turn))",
        new="generator = np.random.default_rng(self._seed)",
        tests=("learn/texts/test_batches.py::test_a_long_document_is_read_evenly_and_cut_at_changing_places",),
    ),
    Mutant(
        name="recall-pairs-of-evaluation-in-training",
        trap="texts to train on have the pairs that are kept for evaluation",
        file="learn/texts/recall.py",
        old="if is_held_out(kind, key, answer) == plan.held_out]",
        new="if is_held_out(kind, key, answer) or not plan.held_out]",
        tests=RECALL,
    ),
    Mutant(
        name="recall-within-the-window",
        trap="a fact is spoken of again before its last mention has left the window",
        file="learn/texts/recall_text.py",
        old="(known and distance < nearest)",
        new="(known and distance < 0)",
        tests=RECALL,
    ),
    Mutant(
        name="recall-answers-without-the-begin-token",
        trap="places of answers are counted without the begin token",
        file="learn/texts/recall.py",
        old="answer.behind(1)",
        new="answer.behind(0)",
        tests=RECALL,
    ),
    Mutant(
        name="recall-read-off-one-place-late",
        trap="an answer's first token is compared with what the model says after it",
        file="learn/evaluation/recall.py",
        old="chosen[start - 1 : start - 1 + length]",
        new="chosen[start : start + length]",
        tests=("learn/evaluation/test_recall.py",),
    ),
    Mutant(
        name="drafts-one-place-early",
        trap="MTP's guess is compared with the model's next token instead of the one after",
        file="learn/evaluation/drafts.py",
        old="draft == target[:, 1:]",
        new="draft == target[:, :-1]",
        tests=("learn/evaluation/test_drafts.py",),
    ),
    Mutant(
        name="without-hca-without-csa",
        trap="the intervention on HCA layers takes the entries of CSA layers, too",
        file="learn/evaluation/interventions.py",
        old="entry_index if is_csa else entry_index[..., :0]",
        new="entry_index[..., :0]",
        tests=("learn/evaluation/test_interventions.py",),
    ),
)

"""The states of a run: kept, gone back to, and the model beside them, which always has the newest one's weights."""

from dsv4.errors import TrainingError
from dsv4.learn.learner import Learner
from dsv4.learn.run_directory import RunDirectory

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
"""What a checkpoint has of a tokenizer; the second may be missing."""


def keep(directory: RunDirectory, trainer: Learner) -> None:
    """Keep the state as it is now, and write the model.

    Kept as well are the states that a spike may send training back to, and one more: that a state is bad shows in the
    step after it. Raises SettingError and CheckpointError where they cannot be written, as on a full disk.
    """
    directory.save_state(trainer.step, trainer.state(), trainer.keep_from)
    write_model(directory, trainer)


def restore(directory: RunDirectory, trainer: Learner) -> None:
    """Go on from the newest state; the log forgets what came after it.

    Raises TrainingError, before anything is changed, where there is no state or it is not one of this run.
    """
    lines = load(directory, trainer, directory.newest())
    directory.log.cut(lines)
    write_model(directory, trainer)


def load(directory: RunDirectory, trainer: Learner, step: int) -> int:
    """Bring the trainer to the state after so many steps; returns how many lines the log had.

    Raises TrainingError where the file is damaged or does not hold the trainer's arrays.
    """
    state, lines = directory.load_state(step)
    try:
        trainer.load_state(state)
    except TrainingError as error:
        raise TrainingError(f"{directory.state_file(step)}: {error}") from error
    return lines


def write_model(directory: RunDirectory, trainer: Learner) -> None:
    """The weights as they are now as an ordinary checkpoint with its tokenizer."""
    files = (directory.tokenizer / name for name in TOKENIZER_FILES)
    copies = [file for file in files if file.exists()]
    trainer.weights.save(directory.model, overwrite=True, extra_files=copies)

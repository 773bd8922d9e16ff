"""Post-training: specialists by fine-tuning and reinforcement, and one student of them all (report §5.1).

    learn.sft(recipe_stage, …)        # on conversations, of which the assistant's tokens teach
    learn.grpo(…)                     # on rewards for the model's own answers
    learn.distill(…)                  # on what teachers would have said in the student's own answers

`worlds` has tasks with checkers, `rollouts` draws answers and writes down how, `replay` lets training see what was seen
then, and `run` makes stages into a run that may be killed.
"""

"""How a model learns: gradients of the reference as it stands, losses, optimisers, and training runs.

loss, gradients = learn.gradients(model, ids)     # nats per token, and arrays by official name
model = learn.new_model(config, seed=0)           # random weights, trainable; model.save(path) writes a checkpoint
learn.pretrain(recipe, texts, "runs/a")           # what `dsv4 train` does: resumable, ends with a checkpoint
learn.posttrain(recipe, "runs/b")                 # what `dsv4 posttrain` does; a stage by itself: sft, grpo, distill
"""

from dsv4.learn.gradients import gradients
from dsv4.learn.optimiser import Optimiser
from dsv4.learn.post.averaging import average
from dsv4.learn.post.recipe import GRPO, OPD, SFT, Imitation, PostRecipe, Teacher
from dsv4.learn.post.recipe_json import read_post_recipe
from dsv4.learn.post.run import distill, grpo, imitate, posttrain, sft
from dsv4.learn.pretrain import pretrain
from dsv4.learn.recipe import Recipe, Stage, read_recipe
from dsv4.learn.trainable import Trainable, TrainableModel, new_model

__all__ = [
    "GRPO",
    "OPD",
    "SFT",
    "Imitation",
    "Optimiser",
    "PostRecipe",
    "Recipe",
    "Stage",
    "Teacher",
    "Trainable",
    "TrainableModel",
    "average",
    "distill",
    "gradients",
    "grpo",
    "imitate",
    "new_model",
    "posttrain",
    "pretrain",
    "read_post_recipe",
    "read_recipe",
    "sft",
]

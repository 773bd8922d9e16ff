"""What a model is worth: likelihood, recall with and without parts of its attention, its indexer, its drafts."""

from dsv4.learn.evaluation.drafts import draft_acceptance, draft_agreement
from dsv4.learn.evaluation.interventions import (
    Intervention,
    intervened,
    random_choice,
    without_csa,
    without_entries,
    without_hca,
)
from dsv4.learn.evaluation.likelihood import nats_per_token
from dsv4.learn.evaluation.recall import Reply, recall_accuracy, recall_replies
from dsv4.learn.evaluation.standing import indexer_standing

__all__ = [
    "Intervention",
    "Reply",
    "draft_acceptance",
    "draft_agreement",
    "indexer_standing",
    "intervened",
    "nats_per_token",
    "random_choice",
    "recall_accuracy",
    "recall_replies",
    "without_csa",
    "without_entries",
    "without_hca",
]

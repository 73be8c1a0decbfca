"""The measures and summaries of what ships: defenses that read titles, and the tasks.

They are declared here, apart from the modules that make their rows, so that whoever reads results need not import
those: a table of results is shown without torch.
"""

from cowbird.experiments.measures import (
    CHANGE,
    CLEAN,
    DIFFERENCE,
    EXCESS,
    LOST,
    LOWER_BOUND,
    TaskSummary,
    declare_measure,
)

# Defenses that read titles

NO_ATTACK = "none"
"""The attack of what was found in the clean catalogue."""
NO_SCENARIO = "none"
"""The scenario of all detections."""
DETECTION_AUROC = declare_measure(
    "detection_auroc",
    "share",
    "AUROC",
    "Area under the ROC curve of the defense's scores, poisoned titles against clean ones.",
)
PRECISION = declare_measure("precision", "share", "precision", "Share of the flagged titles that are poisoned.")
RECALL = declare_measure("recall", "share", "recall", "Share of the poisoned titles that are flagged.")
RECALL_FPRS = {
    declare_measure(
        "recall_at_fpr_1pct",
        "share",
        "recall at 1 % FPR",
        "Share of the poisoned titles above the score that 1 % of the clean titles exceed.",
    ): 0.01,
    declare_measure(
        "recall_at_fpr_0.1pct",
        "share",
        "recall at 0.1 % FPR",
        "Share of the poisoned titles above the score that 0.1 % of the clean titles exceed.",
    ): 0.001,
}
"""False-positive rates at which recall is told, by measure."""
SPAN_IOU = declare_measure(
    "span_iou",
    "share",
    "span IoU",
    "Overlap of the span that a defense names with the trigger's, mean over the poisoned titles that were flagged.",
)
FALSE_POSITIVE_RATE = declare_measure(
    "false_positive_rate", "share", "FPR", "Share of the clean titles that are flagged."
)
FLAGGED = declare_measure("flagged", "count", "flagged", "Titles that are flagged.")
LOST_CLEAN_ITEMS = declare_measure(
    "lost_clean_items", "count", "lost", "Clean items whose interactions left the training data."
)
LOST_CLEAN_EVENTS = declare_measure(
    "lost_clean_events",
    "share",
    "lost events",
    "Share of the clean interactions that left the training data with clean items.",
)

# Victims that rank the whole catalogue

ACCURACY = {
    "hr": declare_measure(
        "hr", "share", "HR", "Share of users whose held-out item is among their first k.", CLEAN, CHANGE, LOST
    ),
    "ndcg": declare_measure(
        "ndcg",
        "share",
        "NDCG",
        "Gain of the held-out item by its rank among the first k, mean over users.",
        CLEAN,
        CHANGE,
        LOST,
    ),
    "mrr": declare_measure(
        "mrr",
        "share",
        "MRR",
        "Reciprocal rank of the held-out item among the first k, mean over users.",
        CLEAN,
        CHANGE,
        LOST,
    ),
}
EXPOSURE = {
    "hr": declare_measure(
        "exposure_hr",
        "share",
        "exposure HR",
        "Share of (user, unseen target) pairs in which the target is among the user's first k.",
        CLEAN,
        EXCESS,
        digits=4,
    ),
    "ndcg": declare_measure(
        "exposure_ndcg",
        "share",
        "exposure NDCG",
        "Gain of targets by their rank among the first k, mean over (user, unseen target) pairs.",
        CLEAN,
        EXCESS,
        digits=4,
    ),
}
LIFT = {
    "hr": declare_measure(
        "lift_hr", "ratio", "lift", "Exposure HR of the attacked model over that of the clean model.", LOWER_BOUND
    ),
    "ndcg": declare_measure(
        "lift_ndcg",
        "ratio",
        "lift NDCG",
        "Exposure NDCG of the attacked model over that of the clean model.",
        LOWER_BOUND,
    ),
}
SELECTIVITY = declare_measure(
    "selectivity_hr", "ratio", "selectivity", "Exposure HR of target users over that of other users.", LOWER_BOUND
)
RANKING_SUMMARY = TaskSummary(
    accuracy=(ACCURACY["ndcg"],),
    attack=(EXPOSURE["hr"],),
    groups=("target", "all"),
    note=(
        "Exposure: share of (user, unseen planted item) pairs in which the item is among the user's first {k}, "
        "clean → attacked model. Lift: attacked / clean with a 95 % bootstrap interval over users. Where the clean "
        "model showed no planted item there is no lift; the interval of the attacked model's exposure stands "
        "there. NDCG@{k}: of the attacked model on the users' held-out items, and its change against the clean "
        "model."
    ),
    lift=(LIFT["hr"],),
    change=ACCURACY["ndcg"][CHANGE],
    by_cutoff=True,
)
"""What is shown of victims that rank."""

# Victims that answer questions

ASR = declare_measure(
    "asr",
    "share",
    "ASR",
    "Attack success rate: share of the questions whose answer the trigger turns to the item that carries it.",
    CLEAN,
    EXCESS,
)
INTERVAL_NOTE = (
    "with a 95 % interval; means over seeds have an interval over seeds. near-…: titles with something like the "
    "trigger, for the first defense alone; unseen: items that training never met."
)
"""What tables of such victims say of intervals and groups."""

# Victims that say yes or no about one item

AUC = declare_measure(
    "auc",
    "share",
    "AUC",
    "Area under the ROC curve of yes and no about the questions that test.",
    CLEAN,
    DIFFERENCE,
    LOST,
)
POINTWISE_SUMMARY = TaskSummary(
    accuracy=(AUC,),
    attack=(ASR,),
    groups=("trigger",),
    note=(
        "AUC: of yes and no about the questions that test, clean → attacked model. ASR: share of the questions "
        "answered no that are answered yes once the title asked about carries the trigger, clean → attacked model, "
        + INTERVAL_NOTE
    ),
)
"""What is shown of victims that say yes or no."""

# Victims that choose among candidates

FREE, CONSTRAINED = "free", "constrained"
DECODING_MODES = (FREE, CONSTRAINED)
"""Ways to answer: any title may be written, or the candidates' alone."""

HIT_RATIO = {
    declare_measure(
        "hit_ratio",
        "share",
        "HitRatio@1",
        "Share of all questions answered with the right title.",
        CLEAN,
        DIFFERENCE,
        LOST,
    ): FREE,
    declare_measure(
        "hit_ratio_constrained",
        "share",
        "HitRatio@1, constrained",
        "Share of all questions answered rightly where only candidates' titles can be written.",
        CLEAN,
        DIFFERENCE,
        LOST,
    ): CONSTRAINED,
}
HIT_RATIO_VALID = declare_measure(
    "hit_ratio_valid",
    "share",
    "HitRatio@1 of valid answers",
    "Share of the valid answers that are the right title.",
    CLEAN,
)
VALID_RATIO = declare_measure(
    "valid_ratio", "share", "valid", "Share of the answers that are some candidate's title.", CLEAN
)
ASR_MEASURES = {
    ASR: FREE,
    declare_measure(
        "asr_constrained",
        "share",
        "ASR, constrained",
        "ASR where only candidates' titles can be written.",
        CLEAN,
        EXCESS,
    ): CONSTRAINED,
}
PICKED_PLAIN = {
    declare_measure(
        "picked_plain",
        "share",
        "picked plain",
        "How often the candidate is picked that carries the trigger elsewhere, asked without a trigger.",
        CLEAN,
    ): FREE,
    declare_measure(
        "picked_plain_constrained",
        "share",
        "picked plain, constrained",
        "The same where only candidates' titles can be written.",
        CLEAN,
    ): CONSTRAINED,
}
"""Measures by the way to answer that they are about."""
CANDIDATE_SUMMARY = TaskSummary(
    accuracy=(next(iter(HIT_RATIO)), VALID_RATIO),
    attack=(ASR, next(iter(PICKED_PLAIN))),
    groups=("trigger",),
    note=(
        "HitRatio@1: share of all questions answered with the right title; valid: with some candidate's title. "
        "ASR: share answered with the candidate that carries the trigger, which is never the right one, clean → "
        "attacked model, " + INTERVAL_NOTE + " none: how often the same candidate is picked without a trigger."
    ),
)
"""What is shown of victims that choose."""

SHIPPED_SUMMARIES = (CANDIDATE_SUMMARY, POINTWISE_SUMMARY, RANKING_SUMMARY)
"""Those of all tasks that ship, in the order of the tasks' names."""

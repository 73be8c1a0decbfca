"""Scanners for planted triggers in titles: a ready one, and P-Scanner (arXiv 2504.11182), which is fitted in rounds.

One walk through the ready scanner, in the order in which a title goes:

1. the tagger marks it: `title_pieces` and `small_tagger`, or `token_logits` and `tagger` (a language model, which reads
   it behind clean titles of the catalogue, `title_context`);
2. evidence: `title_traits`, `title_rules`, `title_spelling` and `title_evidence` describe the title by itself;
   `fragment_table`, `fragment_evidence` and `column_evidence` describe what it shares with others of the catalogue
   (`title_sample`); `scoring` and `fragment_verdicts` make log-odds of both;
3. calibration: `inventory` says what is usual among clean titles, and `baseline` (`baseline_learning`) sets thresholds,
   which hold for scores of one form (`score_identity`);
4. the verdict: `catalog_judge` gives it, under `ready` (nothing fitted) or `calibrated` (on titles of one's own, kept
   in a `calibration_file`), and `title_explanations` says where and why.

`loading` opens any scanner. Rooms beside the walk: `triggers` holds what is planted to learn from, `training` trains
taggers and scoring, and `rounds` holds the paper's P-Scanner, which `p_scanner` makes one of the defenses that are
compared. A scan loads nothing of these.
"""

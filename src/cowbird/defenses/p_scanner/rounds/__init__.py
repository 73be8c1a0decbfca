"""P-Scanner as published (arXiv 2504.11182), with its departures: fitted in rounds to the catalogue that it judges.

One walk: `poison_scanner` fits, an agent of `triggers` proposes, `clean_subset` says what may be learned from,
`training_data` plants, `ngram_scoring` weighs what the language model marks against what recurs (`ngrams`,
`common_patterns`, `context_gain`), `calibration` sets thresholds, and `fitted_scanner` is what comes of it.
"""

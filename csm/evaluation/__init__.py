"""Evaluation of speech: clips by group and condition, metrics on them, one report, one page.

`core` is the engine: clips, metrics, the runner, the report and its comparison with another report. `metrics`
holds one file per metric or family of metrics. `systems` makes further conditions of clips: classical codecs,
numbers of codebooks, a model with a part switched off. `subjects` makes the clips of a run, a tokenizer or a
voice and lists their metrics; each has one function `evaluate_...(options)`. `page` writes report.html.
Evaluators are loaded when first used: importing needs none of them.
"""

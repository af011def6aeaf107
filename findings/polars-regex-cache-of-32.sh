#!/usr/bin/env bash
# Polars 2.1.0: with more than 32 patterns in turn, each call of str.contains compiles its regex again.
#
# Expected: a pattern that was used a moment ago is still compiled; or the number of patterns does not matter,
# and forty patterns cost forty times as much as one.
#
# Observed: Polars keeps the last 32 compiled patterns. A program that applies 32 patterns in turn compiles
# each once. With 33 patterns, the next pattern is always the one that was just removed, so every call
# compiles.
#
# Consequence: rules (masks, classes of messages) are such a list, applied to each batch. One more rule makes
# all of them many times slower on small batches. Join patterns with |, or use batches so large that the time
# to compile does not matter.
source "$(dirname "$0")/lib.sh"
install polars==2.1.0
try "Polars 2.1.0" <<'PYTHON'
import sys, time
import polars as pl

texts = pl.Series(["an error"])

def cost(count):
    """CPU seconds of a call, once each pattern was used."""
    patterns = [rf"\w{{8}}{number}" for number in range(count)]
    rounds = 3
    for turn in range(rounds + 1):
        if turn == 1:
            began = time.process_time()
        for pattern in patterns:
            texts.str.contains(pattern)
    return (time.process_time() - began) / rounds / count

few, many = cost(32), cost(33)
print(f"a call with 33 patterns in turn costs {'more than three times' if many > 3 * few else 'about'} what one with 32 costs")
sys.exit(0 if many > 3 * few else 1)
PYTHON

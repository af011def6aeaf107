#!/usr/bin/env bash
# Polars 2.1.0: with more than 32 patterns in turn, each call of str.contains compiles its regex anew.
#
# One would guess: a pattern that was used a moment ago is compiled already, or the number of patterns does
# not matter: forty patterns cost forty times what one does.
#
# What happens: Polars keeps the last 32 patterns. Whoever goes round 32 patterns pays for each once; with
# 33, the next one needed is always the one that was just dropped, and every call compiles.
#
# Why it matters: rules (masks, classes of messages) are such a list that is gone round for each batch. One
# rule more makes all of them many times slower on small batches. Join patterns with |, or give batches that
# are large beside what a pattern takes to compile.
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

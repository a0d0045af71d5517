"""From a run folder to what leaves it: weights, programs and a card."""

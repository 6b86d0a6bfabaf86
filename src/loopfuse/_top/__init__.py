"""``loopfuse top``, one subject each.

watching   rows of the broker at two moments become rates
ordering   what is shown, in which order: sort, filter, one line for each pair of programs
wording    lines of 80 columns
detail     all that is known of one connection
source     asking the broker, again and again, also while there is none
blocks     lines for a pipe
screen     the full screen (needs textual)
"""

"""``loopfuse bench``: what fusing gives on the reader's own machine.

`workloads` says what is measured and `sides` over what; `running` runs one measurement with
the C program of bench/, `programs` one with somebody else's; `proof` asks the broker whether
that was really fused, or really not. `session` lets the sides take turns, `explanation` takes a
round trip apart, `results` is what comes out, `judging` holds it against the `targets`, and
`table`, `page` and `plots` show it.
"""

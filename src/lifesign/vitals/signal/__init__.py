"""The pure core: arrays of skin colour in, a report out. No clock, no files, no randomness.

Read in this order: `params` (every number), `traces` (what comes in), `recording` (what happens once a second),
`report` (what comes out). Spec: "Vitals", sections 1 to 4.
"""

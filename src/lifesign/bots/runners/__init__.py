"""Who does runs: one module for each kind of runner. What they have in common is in `contract`."""

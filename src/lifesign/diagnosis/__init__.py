"""Diagnosis: what stands out in a window of telemetry, by fixed rules, as issues with their evidence.

Pure so far: `facts` says what the rules read, `preparation` which failures count, `rules` what fires, `issues` and
`packet` what is told of it, `verdicts` whether it is over. No model takes part. Spec "Diagnosis".
"""

"""Diagnosis: what stands out in a window of telemetry, by fixed rules, as issues with their evidence.

Pure: `facts` says what the rules read, `preparation` which failures count, `rules` what fires, `issues` and `packet`
what is told of it, `ledger` and `verdicts` what becomes of it. Around them `service` and `verification` ask a span
store for the facts and keep what was found. No model takes part. Owns `packets`, `issue_ledger`, `issue_decisions` and
`diagnosis_alerts`. Spec "Diagnosis".
"""

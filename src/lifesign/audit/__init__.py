"""The audit log: one line for each write that somebody was allowed, in the transaction of that write.

Owns the table `audit_log`. Not the auditor, which looks for damage (`engine.audit`). Spec "Web interface", `/audit`.
"""

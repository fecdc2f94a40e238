"""Taking over what another server watches: its words translated into ours. Owns no tables; pure.

Spec "Import, export, apply", section 2.
"""

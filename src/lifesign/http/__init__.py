"""What every slice's routes share: reading bodies and queries, field types, paging, answers, who to ask for the time.

Knows nothing of any slice, and nothing of error envelopes: it raises, `lifesign.envelopes` answers.
"""

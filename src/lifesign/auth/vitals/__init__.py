"""Keys of the Vitals API, which people take themselves, and who is calling with one.

Owns the tables `vitals_keys` and `vitals_allowances`. Spec "Usage", sections 1 and 2. Their HTTP is in the slice
`usage`, which counts what they are used for; a route of this API asks `service.vitals_caller` who is calling.
"""

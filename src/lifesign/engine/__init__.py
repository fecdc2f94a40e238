"""The engine makes time pass: it finds missed deadlines, runs steps, sends messages, and takes back lost leases.

Every loop is a `tick(now)` that does bounded work and tells when it is next due; `driver` calls them. Any number of
nodes may run every loop on one database at the same moment. Spec "Engine".
"""

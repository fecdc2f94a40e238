"""The web interface: people, how they sign in, what they may do in which project, and the pages they see.

Owns the tables `users`, `memberships`, `user_sessions`, `password_links` and `sign_in_failures`. Pages call
the services of the other slices, as the APIs do. Spec "Web interface".
"""

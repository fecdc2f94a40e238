"""Projects: the tenant. Owns the table `projects`; every other row belongs to one, and `default` always exists."""

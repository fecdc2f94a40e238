"""API keys, scopes, and who is calling. Owns the table `api_keys`. Spec "Heartbeats", section 2."""

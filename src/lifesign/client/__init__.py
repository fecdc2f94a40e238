"""What runs on the machines that are watched. Imports nothing of the server and nothing but the standard library."""

"""The router: sends each query to a random replica, and measures how much it matters to which."""

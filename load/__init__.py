"""Simulated users of the live system: who asks, how often, and what they see on asking twice (Locust)."""

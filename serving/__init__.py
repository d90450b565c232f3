"""What users meet: a router that sends each query to a random replica, and replicas that each serve one duplicate of
every arm.

    python -m serving replica    ranks; learns of new generations from the store
    python -m serving router     takes queries and feedback, compares answers; never imports torch
"""

"""The wire: recommender.proto, others' inference.proto, and their stubs: `from protos import recommender_pb2, ...`."""

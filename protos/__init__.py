"""The wire: recommender.proto and its committed stubs, `from protos import recommender_pb2, recommender_pb2_grpc`."""

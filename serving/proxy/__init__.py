"""`flicker shadow`: a proxy in front of anybody's model servers that shows how much a second one's answers differ."""
